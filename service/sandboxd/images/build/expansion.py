"""Variables in a Dockerfile: `$V`, `${V:-x}`, `${V:+x}`, `${V:?x}`, `${V#p}`, `${V/p/x}` and so on.

https://docs.docker.com/reference/dockerfile/#environment-replacement. Quotes and escapes go at the
same time, as there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import e2b_dockerfile_utils as syntax

from sandboxd.errors import BadRequest


class Expansion:
    """Expands words with `variables`; one that is not among them is empty."""

    def __init__(self, variables: Mapping[str, str], escape: str) -> None:
        self._variables, self._escape = variables, escape

    def word(self, text: str) -> str:
        """One word, whatever spaces its value has. Raises BadRequest."""
        with _explained(text):
            return self._lexer().process_word(text)

    def words(self, text: str) -> list[str]:
        """The words that a text comes apart into. Raises BadRequest."""
        with _explained(text):
            return self._lexer().process_words(text)

    def document(self, text: str) -> str:
        """A heredoc's content: quotes are characters like any other."""
        with _explained(text):
            return self._lexer(skip_quotes=True).process_word(text)

    def _lexer(self, *, skip_quotes: bool = False) -> syntax.ShellLex:
        return syntax.ShellLex(
            self._escape,
            skip_process_quotes=skip_quotes,
            env=self._variables,
            skip_unset_env=False,
        )


@contextmanager
def _explained(text: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"cannot expand {text[:200]!r}", str(error)) from error
