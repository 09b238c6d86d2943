"""The plugin's options: one table, read from the command line, the ini file and the environment.

Each setting has one name in three spellings: `--sandbox-log-lines`, `sandbox_log_lines` in the ini
file, `SANDBOX_LOG_LINES` in the environment. A factory's argument wins over all of them, then the
order is command line, ini file, environment, default. `show` alone adds up: what any of them
names is visible. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

IniType = Literal["string", "paths", "args", "bool", "int", "float"]


class Options(NamedTuple):
    """The resolved settings of one pytest run."""

    host: str | None
    """`unix://PATH` of the service's socket; None: where sandboxctl looks for it too."""
    image: tuple[str, ...]
    """Images in whose containers the suite itself runs; empty: it runs here."""
    container_image: str
    """Image of the containers whose factory names none."""
    timeout: float
    """Seconds that a container may take to become ready."""
    log_lines: int
    """Lines of each log in a failing test's report; 0 leaves the logs out."""
    show: tuple[Path, ...]
    """Host paths that containers of the image `host` see, read-only."""
    skip_unavailable: bool
    """Skip, instead of failing, what this machine cannot run."""
    snapshot_cache: str | None
    """A repository in a registry where snapshots are looked for before they are built."""
    snapshot_cache_push: bool
    """Store there what is built here."""
    prefetch: bool
    """Fetch the images that the tests need before the first of them."""
    offline: bool
    """Fetch none, and run nothing when one is missing."""
    durations: int | None = None
    """Show what this many resources cost, 0 for all; None: show none."""
    report: Path | None = None
    """Write the run as a page there."""
    postgres: str | None = None
    """Version of the PostgreSQL servers whose test names none; None: whatever there is."""


class Setting(NamedTuple):
    """One row of the table: how a setting is spelled, parsed and explained."""

    name: str
    help: str
    parse: Callable[[str], Any]
    default: Any
    metavar: str = ""
    ini_type: IniType = "string"

    @property
    def flag(self) -> str:
        return "--sandbox-" + self.name.replace("_", "-")

    @property
    def ini(self) -> str:
        return f"sandbox_{self.name}"

    @property
    def variable(self) -> str:
        return f"SANDBOX_{self.name.upper()}"


def _address(text: str) -> str:
    if not text.startswith("unix:///"):
        raise ValueError("only unix:///absolute/path is served")
    return text


def _name(text: str) -> str:
    if not text:
        raise ValueError("it is empty")
    return text


def _seconds(text: str) -> float:
    if not 0 < (seconds := float(text)) < float("inf"):
        raise ValueError("it is not a positive number of seconds")
    return seconds


def _count(text: str) -> int:
    if (count := int(text)) < 0:
        raise ValueError("it is negative")
    return count


def _page(text: str) -> Path:
    path = Path(text).absolute()
    if not text or path.is_dir():
        raise ValueError("it is no name of a file")
    return path


def _words(text: str) -> tuple[str, ...]:
    return tuple(_name(word) for word in text.split(" "))


def _version(text: str) -> str:
    if not text or not all(part.isdecimal() for part in text.split(".")):
        raise ValueError("a version is needed, such as 17 or 17.2")
    return text


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(Path(part).absolute() for part in text.split(os.pathsep) if part)


def _switch(text: str) -> bool:
    if text.lower() not in ("0", "1", "true", "false", "yes", "no", "on", "off"):
        raise ValueError("it is neither true nor false")
    return text.lower() in ("1", "true", "yes", "on")


SETTINGS = (
    Setting("host", "Connect to the service at ADDRESS, unix:///PATH", _address, None, "ADDRESS"),
    Setting(
        "image",
        "Run the suite in containers of IMAGE; several (it may be repeated) make a matrix",
        _words,
        (),
        metavar="IMAGE",
        ini_type="args",
    ),
    Setting(
        "container_image",
        "Make containers of IMAGE where the factory names none",
        _name,
        "host",
        metavar="IMAGE",
    ),
    Setting(
        "timeout",
        "Give a container SECONDS to become ready",
        _seconds,
        30.0,
        metavar="SECONDS",
        ini_type="float",
    ),
    Setting(
        "log_lines",
        "Show the last LINES of each log in a failing test",
        _count,
        50,
        metavar="LINES",
        ini_type="int",
    ),
    Setting(
        "show",
        "Show PATH, read-only, to containers of the image host (may be repeated)",
        _paths,
        (),
        metavar="PATH",
        ini_type="paths",
    ),
    Setting(
        "skip_unavailable",
        "Skip, instead of failing, tests whose containers this machine cannot run",
        _switch,
        False,
        ini_type="bool",
    ),
    Setting(
        "snapshot_cache",
        "Look for snapshots in the registry's repository REF before building them",
        _name,
        None,
        metavar="REF",
    ),
    Setting(
        "snapshot_cache_push",
        "Store the snapshots that are built here in the snapshot cache",
        _switch,
        False,
        ini_type="bool",
    ),
    Setting(
        "prefetch",
        "Fetch the images that the tests need before the first test; it is the default",
        _switch,
        True,
        ini_type="bool",
    ),
    Setting(
        "offline",
        "Fetch no image: name those that are missing and run nothing",
        _switch,
        False,
        ini_type="bool",
    ),
    Setting(
        "durations",
        "Show what the N costliest images, snapshots and containers cost (0 for all)",
        _count,
        None,
        metavar="N",
        ini_type="int",
    ),
    Setting(
        "report",
        "Write the run as one HTML page: its timeline, logs, escapes, costs and failures",
        _page,
        None,
        metavar="FILE.html",
    ),
    Setting(
        "postgres",
        "Give tests that name no version a PostgreSQL of VERSION",
        _version,
        None,
        metavar="VERSION",
    ),
)

LOCK_FLAG = "--sandbox-lock"

_OPTIONS = pytest.StashKey[Options]()


def add_options(parser: pytest.Parser) -> None:
    """Add the group `sandbox` to pytest's command line, and the ini keys of the same names."""
    group = parser.getgroup("sandbox", "throwaway containers (pytest-sandbox)")
    for setting in SETTINGS:
        if setting.ini_type == "bool":
            group.addoption(
                setting.flag, action="store_const", const="true", default=None, help=setting.help
            )
        elif setting.ini_type in ("paths", "args"):
            group.addoption(
                setting.flag,
                action="append",
                default=None,
                metavar=setting.metavar,
                help=setting.help,
            )
        else:
            group.addoption(setting.flag, default=None, metavar=setting.metavar, help=setting.help)
        parser.addini(setting.ini, setting.help, type=_known_type(setting.ini_type), default=None)
    group.addoption(
        LOCK_FLAG,
        action="store_true",
        help="Pin the images of the collected tests to digests in sandbox.lock; run nothing",
    )


def _known_type(ini_type: IniType) -> IniType:
    """Numbers are strings to a pytest before 8.4, which has no ini types for them."""
    if ini_type in ("int", "float") and pytest.version_tuple < (8, 4):
        return "string"
    return ini_type


def options_of(config: pytest.Config) -> Options:
    """The settings of this run. Raises UsageError that names the source of an unusable value."""
    if _OPTIONS not in config.stash:
        values = {setting.name: _resolve(setting, config, os.environ) for setting in SETTINGS}
        config.stash[_OPTIONS] = Options(**values)
    return config.stash[_OPTIONS]


def _resolve(setting: Setting, config: pytest.Config, environ: Mapping[str, str]) -> Any:
    found = list(_sources(setting, config, environ))
    values = [_parse(setting, source, value) for source, value in found]
    if setting.ini_type == "paths":
        return tuple(dict.fromkeys(path for paths in values for path in paths))
    return values[0] if values else setting.default


def _sources(
    setting: Setting, config: pytest.Config, environ: Mapping[str, str]
) -> list[tuple[str, Any]]:
    """Where the setting is given, strongest first: (the source's name, the raw value)."""
    candidates = [
        (setting.flag, config.getoption(setting.flag)),
        (setting.ini, config.getini(setting.ini)),
        (setting.variable, environ.get(setting.variable) or None),
    ]
    return [(source, value) for source, value in candidates if value is not None]


def _parse(setting: Setting, source: str, value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, list) and setting.ini_type == "paths":
        return tuple(Path(path).absolute() for path in value)
    try:
        if isinstance(value, list):
            return tuple(word for each in value for word in setting.parse(each))
        return setting.parse(str(value))
    except ValueError as error:
        shown = " ".join(value) if isinstance(value, list) else value
        raise pytest.UsageError(f"{source}={shown}: {error}") from None
