"""Names of images: the grammar of https://github.com/distribution/reference, and short forms.

`busybox`, `docker.io/busybox` and `index.docker.io/library/busybox:latest` are one image. The first
component is a registry only if it has a dot, a colon or an upper-case letter, or is `localhost`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from sandboxd.errors import BadRequest

HUB: Final = "docker.io"
_HUB_ALIAS: Final = "index.docker.io"
_HUB_PREFIX: Final = "library/"
_NAME_MAX: Final = 255

_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL: Final = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST: Final = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_DOMAIN: Final = re.compile(_HOST, re.ASCII)
_PATH: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_DIGEST: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}", re.ASCII
)
_HEX: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ERROR: Final = "invalid reference format"


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised name: where, what, and which; no tag and no digest when none was written."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises BadRequest("invalid reference format…") in the words of Docker."""
        rest, _, digest = text.partition("@")
        if "@" in text and not _DIGEST.fullmatch(digest):
            raise BadRequest(_ERROR, "the part after @ is not a digest")
        name, tag = _split_tag(rest)
        domain, path = _split_domain(name)
        if path != path.lower():
            raise BadRequest(_ERROR, "repository name must be lowercase")
        if not _PATH.fullmatch(path) or not _DOMAIN.fullmatch(domain):
            raise BadRequest(_ERROR)
        if _HEX.fullmatch(name):
            raise BadRequest(
                _ERROR, f"cannot specify 64-byte hexadecimal strings as a name ({name})"
            )
        if tag is not None and not _TAG.fullmatch(tag):
            raise BadRequest(_ERROR)
        if len(f"{domain}/{path}") > _NAME_MAX:
            raise BadRequest(
                _ERROR, f"repository name must not be more than {_NAME_MAX} characters"
            )
        return cls(domain, path, tag or "", digest)

    @property
    def name(self) -> str:
        """The short form without tag: `busybox`, `user/app`, `localhost:5000/app`."""
        if self.domain != HUB:
            return f"{self.domain}/{self.path}"
        short = self.path.removeprefix(_HUB_PREFIX)
        return self.path if "/" in short else short

    @property
    def tagged(self) -> str:
        """The short form with its tag, `latest` when none was written."""
        return f"{self.name}:{self.tag or 'latest'}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")


def _split_tag(text: str) -> tuple[str, str | None]:
    head, colon, tail = text.rpartition(":")
    if not colon or "/" in tail:
        return text, None
    return head, tail


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_domain = "." in first or ":" in first or first == "localhost" or first != first.lower()
    domain, path = (first, rest) if slash and is_domain else (HUB, name)
    if domain == _HUB_ALIAS:
        domain = HUB
    if domain == HUB and "/" not in path:
        path = _HUB_PREFIX + path
    return domain, path
