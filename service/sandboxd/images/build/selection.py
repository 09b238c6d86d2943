"""Which files the sources of a COPY mean, and where each of them goes.

https://docs.docker.com/reference/dockerfile/#copy. The content of a directory goes into the target;
a file goes into a target that ends with a slash, is a directory, or takes several sources, and
becomes the target otherwise. A source that is a symbolic link is followed, inside its root.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import e2b_dockerfile_utils as syntax

from sandboxd.errors import BadRequest
from sandboxd.images.build.globbing import has_pattern, matched
from sandboxd.images.build.union import Parts, Union, Wanted


@dataclass(frozen=True, slots=True)
class Origin:
    """A tree to copy from. `keeps_owner`: files stay whose they are, unless --chown says other."""

    union: Union
    wanted: Wanted
    keeps_owner: bool = False
    missing: str = "file does not exist"
    """What the error says about a source that is not there."""


@dataclass(frozen=True, slots=True)
class Picked:
    """One source that was found. `target` is its place below the target of the COPY."""

    union: Union
    parts: Parts
    target: Parts
    is_directory: bool
    keeps_owner: bool
    wanted: Wanted
    """What of a directory counts, by path relative to it."""
    extra: bool = False
    """A heredoc or a download: never unpacked."""


@dataclass(frozen=True, slots=True)
class Selection:
    """`into` is whether the target is, or becomes, a directory that takes the sources."""

    picked: tuple[Picked, ...]
    into: bool


@dataclass(frozen=True, slots=True)
class Request:
    """What one COPY or ADD asks for, words expanded. A target that is a directory ends in `/`."""

    keyword: str
    patterns: Sequence[str]
    target: str
    parents: bool = False
    excludes: Sequence[str] = ()


def select(
    request: Request,
    origin: Origin,
    extra: Sequence[tuple[Origin, str]] = (),
    *,
    target_is_directory: bool,
) -> Selection:
    """The sources of a request, then `extra` files that are not in its origin.

    Raises BadRequest: nothing found, a source outside, a target that must be a directory."""
    excluded = _excluded(request.excludes)
    found = [
        (origin, pattern, parts)
        for pattern in request.patterns
        for parts in _found(request, origin, pattern, excluded)
    ]
    found += [(each, "", (name,)) for each, name in extra]
    if not found:
        raise BadRequest(f"{request.keyword} failed: no source files were specified")
    named_as_directory = request.target.endswith("/")
    if (len(request.patterns) + len(extra) > 1 or len(found) > 1) and not (
        named_as_directory or target_is_directory
    ):
        why = "the destination must be a directory and end with a /"
        what = f"When using {request.keyword} with more than one source file"
        raise BadRequest(f"{what}, {why}")
    into = named_as_directory or target_is_directory or request.parents
    picked = [
        _picked(request, each, pattern, parts, into=into, excluded=excluded)
        for each, pattern, parts in found
    ]
    return Selection(tuple(picked), into)


def _found(
    request: Request, origin: Origin, pattern: str, excluded: syntax.PatternMatcher | None
) -> Iterator[Parts]:
    """The paths that a source means, as they are written or matched."""
    plain = posixpath.normpath(pattern.lstrip("/") or ".")
    if plain == ".." or plain.startswith("../"):
        what = f"{request.keyword} failed: forbidden path outside the build context: {pattern}"
        raise BadRequest(what)
    components = tuple(part for part in plain.split("/") if part != ".")
    if _exists(origin, components):
        yield components
        return
    if not has_pattern(plain):
        what = f"{request.keyword} failed: stat {pattern}"
        raise BadRequest(what, origin.missing)
    for parts in matched(origin.union, plain):
        if _exists(origin, parts) and not (excluded and excluded.matches("/".join(parts))):
            yield parts


def _exists(origin: Origin, parts: Parts) -> bool:
    with origin.union.at(origin.union.resolve("/".join(parts))) as node:
        if node is None:
            return False
        return not parts or origin.wanted(parts, node.is_directory) is not False


def _picked(
    request: Request,
    origin: Origin,
    pattern: str,
    parts: Parts,
    *,
    into: bool,
    excluded: syntax.PatternMatcher | None,
) -> Picked:
    real = origin.union.resolve("/".join(parts))
    with origin.union.at(real) as node:
        is_directory = node is not None and node.is_directory
    target: Parts = ()
    if request.parents:
        target = parts[_pivot(pattern) :]
    elif not is_directory and into:
        target = parts[-1:]

    def wanted(path: Parts, is_directory: bool) -> bool | None:
        if excluded is not None and excluded.matches("/".join((*parts, *path))):
            return None if excluded.may_match_under("/".join((*parts, *path))) else False
        return origin.wanted((*real, *path), is_directory)

    keeps_owner, is_extra = origin.keeps_owner, not pattern
    return Picked(origin.union, real, target, is_directory, keeps_owner, wanted, is_extra)


def _pivot(pattern: str) -> int:
    """How many components --parents leaves away: those before `/./`."""
    before, dot, _ = pattern.partition("/./")
    return len([part for part in before.split("/") if part not in ("", ".")]) if dot else 0


def _excluded(patterns: Sequence[str]) -> syntax.PatternMatcher | None:
    if not patterns:
        return None
    try:
        return syntax.PatternMatcher(list(patterns))
    except ValueError as error:
        raise BadRequest("--exclude", str(error)) from error
