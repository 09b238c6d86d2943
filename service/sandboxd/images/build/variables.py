"""Which variables an instruction sees: ARGs of the file, of its stage, predefined ones, ENV.

https://docs.docker.com/reference/dockerfile/#arg: an ARG before the first FROM counts in FROM lines
only, until a stage declares it again; ENV goes before an ARG of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sandboxd.images.build.expansion import Expansion
from sandboxd.images.build.instructions import Arg
from sandboxd.images.platform import architecture

_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
PREDEFINED: Final = frozenset((*_PROXIES, *(name.lower() for name in _PROXIES)))
"""Arguments that need no ARG, leave no trace in the history and do not count for the cache."""

Given = Mapping[str, str | None]
"""What `--build-arg` gave by name; None for one whose value the client did not have."""


def platform_arguments(platform: str = "") -> dict[str, str]:
    """BUILDPLATFORM, TARGETPLATFORM and their parts; `platform` is what the build is for."""
    own = f"linux/{architecture()}"
    found: dict[str, str] = {}
    for prefix, value in (("BUILD", own), ("TARGET", platform or own)):
        system, _, rest = value.partition("/")
        machine, _, variant = rest.partition("/")
        found |= {
            f"{prefix}PLATFORM": value,
            f"{prefix}OS": system,
            f"{prefix}ARCH": machine,
            f"{prefix}VARIANT": variant,
        }
    return found


class Globals:
    """The ARGs before the first FROM."""

    def __init__(self, given: Given, escape: str, platform: str = "") -> None:
        self.given, self.escape = given, escape
        self.platform = platform_arguments(platform)
        self.values: dict[str, str | None] = {}
        self.consumed: set[str] = set(PREDEFINED)

    def declare(self, arg: Arg) -> None:
        for name, default in arg.pairs:
            self.consumed.add(name)
            value = self.given.get(name)
            if value is None:
                value = None if default is None else self.expansion().word(default)
            if value is None:
                value = self.platform.get(name)
            self.values[name] = value

    def expansion(self) -> Expansion:
        """For the words of FROM lines."""
        known = {name: value for name, value in self.values.items() if value is not None}
        return Expansion({**self.platform, **known}, self.escape)


class Scope:
    """The variables of one stage, as far as it has got. `environment` is its ENV by name."""

    def __init__(
        self,
        outer: Globals,
        environment: Mapping[str, str],
        inherited: Mapping[str, str] | None = None,
    ) -> None:
        """A stage that is built upon another one inherits its ENV, and its ARGs too."""
        self._outer = outer
        self.environment = dict(environment)
        self._arguments = dict(inherited or {})

    @property
    def declared(self) -> dict[str, str]:
        """All arguments that have a value."""
        return dict(self._arguments)

    def declare(self, arg: Arg) -> None:
        """Each argument's value: from the client, its default, the file's own ARG, predefined."""
        expansion = self.expansion()
        for name, default in arg.pairs:
            self._outer.consumed.add(name)
            value = self._outer.given.get(name)
            if value is None and default is not None:
                value = expansion.word(default)
            elif value is None:
                value = self._outer.values.get(name, self._outer.platform.get(name))
            if value is not None:
                self._arguments[name] = value

    def expansion(self) -> Expansion:
        return Expansion({**self._arguments, **self.environment}, self._outer.escape)

    @property
    def arguments(self) -> dict[str, str]:
        """Declared arguments that are not hidden by ENV: a command sees them, the cache too."""
        return {
            name: value for name, value in self._arguments.items() if name not in self.environment
        }

    def command_environment(self) -> dict[str, str]:
        """What the command of a RUN sees."""
        undeclared = {
            name: value
            for name, value in self._outer.given.items()
            if name in PREDEFINED and value is not None
        }
        return {**undeclared, **self._arguments, **self.environment}
