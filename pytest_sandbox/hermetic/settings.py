"""What is asked for each test: by the marker `hermetic`, the option, the ini file.

The marker nearest to the test wins, argument by argument; then `--hermetic`, then the ini key
`sandbox_hermetic`. A marker that names no scope means a sandbox for each test. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, cast

import pytest

Scope = Literal["function", "class", "module", "session"]
SCOPES: Final[tuple[Scope, ...]] = ("function", "class", "module", "session")
NONE: Final = "none"
"""As a scope: this test is not hermetic."""
NETWORKS: Final = ("loopback", "host")

MARKER: Final = (
    "hermetic(*, scope='function', paths=None, network='loopback', env=None, reuse=True): "
    "run this test in fresh namespaces, over a copy-on-write view of the host; one sandbox for "
    "each 'function', 'class', 'module', 'session', or 'none'; paths: the only host paths to see "
    "besides the system's, the interpreter's and the project's; network 'host' instead of its own "
    "loopback; env: variables to set (a mapping) or to keep (a list of names); reuse=False: never "
    "a sandbox that another test has used"
)

STARTED: Final = pytest.StashKey[bool]()
"""Set in a run whose maker was started."""

_FLAG: Final = "--hermetic"
_INI: Final = "sandbox_hermetic"
_REQUIRE: Final = "--hermetic-require"
_KEPT: Final = ("HOME", "LANG", "LOGNAME", "PATH", "PYTEST_CURRENT_TEST", "SHELL", "TERM", "USER")


class Asked(NamedTuple):
    """What one test asks for."""

    scope: Scope
    paths: tuple[str, ...] | None = None
    """The declared paths, absolute; None: all of the host shows."""
    network: str = "loopback"
    env: tuple[tuple[str, str], ...] = ()
    """Variables to set."""
    kept: tuple[str, ...] | None = None
    """The only variables to keep; None: all."""
    reuse: bool = True

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment of a test that asks for this, made from pytest's."""
        names = environ.keys() if self.kept is None else {*self.kept, *_KEPT} & environ.keys()
        return {**{name: environ[name] for name in environ if name in names}, **dict(self.env)}


def add_options(parser: pytest.Parser) -> None:
    """`--hermetic` alone must not take the next argument for its value, so that each spelling with
    a value is an option of its own."""
    group = parser.getgroup("sandbox", "throwaway containers (pytest-sandbox)")
    told = "Run tests in sandboxes: one for each module, or =function, =class, =session"
    group.addoption(_FLAG, dest="hermetic", action="store_const", const="module", help=told)
    for scope in (*SCOPES, NONE):
        group.addoption(
            f"{_FLAG}={scope}",
            dest="hermetic",
            action="store_const",
            const=scope,
            help=f"… for each {scope}" if scope != NONE else "… not at all",
        )
    group.addoption(
        _REQUIRE,
        choices=("full",),
        default=None,
        help="Refuse to run where sandboxes are not possible, instead of isolating less",
    )
    parser.addini(_INI, "Run tests in sandboxes: true (one for each module), false, or a scope")


def require_full(config: pytest.Config) -> bool:
    """Whether to refuse where user namespaces are denied."""
    return bool(config.getoption(_REQUIRE) == "full")


def default_scope(config: pytest.Config) -> Scope | None:
    """What the option or the ini file says about tests without a marker; None: not hermetic.

    Raises UsageError for an unusable value of the ini file.
    """
    given = config.getoption("hermetic")
    if given is None:
        given = _of_ini(str(config.getini(_INI) or "false"))
    return None if given == NONE else cast(Scope, given)


def _of_ini(text: str) -> str:
    lowered = text.strip().lower()
    if lowered in ("1", "true", "yes", "on"):
        return "module"
    if lowered in ("0", "false", "no", "off"):
        return NONE
    if lowered in SCOPES:
        return lowered
    known = ", ".join(("true", "false", *SCOPES))
    raise pytest.UsageError(f"{_INI}={text}: it is none of {known}")


def asked_of(item: pytest.Item, default: Scope | None) -> Asked | None:
    """What the test asks for; None: it is not hermetic. `default` is `default_scope`'s.

    Raises ValueError, naming the argument, for a marker with unusable arguments.
    """
    merged: dict[str, object] = {}
    marked = False
    for mark in item.iter_markers("hermetic"):
        marked = True
        check_marker(mark)
        merged = {**mark.kwargs, **merged}
    scope = merged.pop("scope", "function" if marked else default)
    if scope is None or scope == NONE:
        return None
    return _resolved(cast(Scope, scope), merged, item)


def _resolved(scope: Scope, merged: Mapping[str, object], item: pytest.Item) -> Asked:
    paths = cast("list[str] | None", merged.get("paths"))
    env = merged.get("env")
    return Asked(
        scope,
        None if paths is None else tuple(_absolute(path, item) for path in paths),
        str(merged.get("network") or "loopback"),
        tuple(sorted(env.items())) if isinstance(env, Mapping) else (),
        None if env is None or isinstance(env, Mapping) else tuple(cast("list[str]", env)),
        merged.get("reuse") is not False,
    )


def _absolute(path: str | os.PathLike[str], item: pytest.Item) -> str:
    """As the test's file means it."""
    return os.path.normpath(item.path.parent / os.path.expanduser(path))


def check_marker(mark: pytest.Mark) -> None:
    """Raises ValueError, naming the argument that cannot be used."""
    if mark.args:
        raise ValueError(f"hermetic takes keyword arguments only, not {mark.args!r}")
    known = ("scope", "paths", "network", "env", "reuse")
    if unknown := [name for name in mark.kwargs if name not in known]:
        raise ValueError(f"hermetic: no argument {unknown[0]!r}; there are {', '.join(known)}")
    values = mark.kwargs
    scope, network, paths = values.get("scope"), values.get("network"), values.get("paths")
    if scope not in (None, NONE, *SCOPES):
        raise ValueError(f"hermetic: scope={scope!r} is none of {', '.join((*SCOPES, NONE))}")
    if network not in (None, *NETWORKS):
        raise ValueError(f"hermetic: network={network!r} is none of {', '.join(NETWORKS)}")
    if paths is not None and not _are(paths, str | os.PathLike):
        raise ValueError(f"hermetic: paths={paths!r} is no list of paths")
    env = values.get("env")
    if isinstance(env, Mapping):
        if not _are([*env.keys(), *env.values()], str):
            raise ValueError(f"hermetic: env={env!r} is no mapping of strings to strings")
    elif env is not None and not _are(env, str):
        raise ValueError(f"hermetic: env={env!r} is neither a mapping nor a list of names")
    if values.get("reuse") not in (None, True, False):
        raise ValueError(f"hermetic: reuse={values['reuse']!r} is neither True nor False")


def _are(values: object, kind: object) -> bool:
    return isinstance(values, list | tuple | set) and all(
        isinstance(value, kind)  # type: ignore[arg-type]
        for value in values
    )
