"""The stages of a Dockerfile, and which of them the target needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sandboxd.errors import BadRequest
from sandboxd.images.build.instructions import Arg, Copy, Dockerfile, From, Instruction, Run
from sandboxd.images.build.variables import Given, Globals

SCRATCH = "scratch"


@dataclass(frozen=True, slots=True)
class Stage:
    """One FROM and what follows it. `base` is the stage it builds on, if that is one."""

    index: int
    source: From
    image: str
    platform: str
    base: int | None
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        return self.source.name


@dataclass(frozen=True, slots=True)
class Plan:
    """`needed` are the target's stage and those it needs, in the order of the file."""

    stages: tuple[Stage, ...]
    target: int
    needed: tuple[int, ...]
    outer: Globals
    numbers: Mapping[int, int]
    """Number of the stage's FROM among the steps of all needed stages, by stage."""
    steps: int

    def stage_called(self, origin: str, before: int) -> int | None:
        """The stage that `--from=ORIGIN` means in stage number `before`; None for an image.

        Raises BadRequest for a number that is no earlier stage.
        """
        return _stage_called(self.stages, origin, before)


def plan_stages(dockerfile: Dockerfile, given: Given, target: str = "", platform: str = "") -> Plan:
    """Raises BadRequest: no FROM, an unknown target, a stage that refers to itself or later."""
    outer = Globals(given, dockerfile.escape, platform)
    groups: list[tuple[From, list[Instruction]]] = []
    for each in dockerfile.instructions:
        if isinstance(each, From):
            groups.append((each, []))
        elif groups:
            groups[-1][1].append(each)
        elif isinstance(each, Arg):
            outer.declare(each)
        else:
            why = "only ARG may come before the first FROM"
            raise BadRequest(f"dockerfile parse error on line {each.line}: {each.text}", why)
    if not groups:
        raise BadRequest("no build stage in the Dockerfile", "it has no FROM")
    stages: list[Stage] = []
    for source, instructions in groups:
        stages.append(_stage(stages, source, tuple(instructions), outer, platform))
    chosen = _target(stages, target)
    needed = tuple(sorted(_needed(stages, chosen)))
    numbers, steps = {}, 0
    for index in needed:
        numbers[index] = steps + 1
        steps += 1 + len(stages[index].instructions)
    return Plan(tuple(stages), chosen, needed, outer, numbers, steps)


def _stage(
    earlier: list[Stage],
    source: From,
    instructions: tuple[Instruction, ...],
    outer: Globals,
    platform: str,
) -> Stage:
    expansion = outer.expansion()
    image, own_platform = expansion.word(source.image), expansion.word(source.platform)
    if not image:
        why = f"base name ({source.image}) should not be blank"
        raise BadRequest(f"Dockerfile line {source.line}: {source.text}", why)
    named = [stage.index for stage in earlier if stage.name and stage.name == image.lower()]
    base = named[-1] if named else None
    return Stage(len(earlier), source, image, own_platform or platform, base, instructions)


def _target(stages: list[Stage], target: str) -> int:
    if not target:
        return len(stages) - 1
    for stage in reversed(stages):
        if stage.name == target.lower():
            return stage.index
    if target.isdigit() and int(target) < len(stages):
        return int(target)
    known = ", ".join(stage.name for stage in stages if stage.name) or "none has a name"
    raise BadRequest(f"target stage {target!r} could not be found", f"stages: {known}")


def _stage_called(stages: tuple[Stage, ...] | list[Stage], origin: str, before: int) -> int | None:
    for stage in reversed(stages[:before]):
        if stage.name and stage.name == origin.lower():
            return stage.index
    if origin.isdigit():
        if int(origin) >= before:
            what = f"invalid from flag value {origin}"
            raise BadRequest(what, "it refers to the current or a later build stage")
        return int(origin)
    return None


def _needed(stages: list[Stage], target: int) -> set[int]:
    found, waiting = set(), [target]
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += _dependencies(stages, stages[index])
    return found


def _dependencies(stages: list[Stage], stage: Stage) -> Iterator[int]:
    if stage.base is not None:
        yield stage.base
    for each in stage.instructions:
        for origin in _origins(each):
            try:
                index = _stage_called(stages, origin, stage.index)
            except BadRequest as error:
                where = f"Dockerfile line {each.line}: {each.text}"
                raise BadRequest(where, f"{error.what}: {error.why}") from error
            if index is not None:
                yield index


def _origins(instruction: Instruction) -> Iterator[str]:
    if isinstance(instruction, Copy) and instruction.origin:
        yield instruction.origin
    if isinstance(instruction, Run):
        for mount in instruction.mounts:
            for option in mount.split(","):
                key, _, value = option.partition("=")
                if key.strip() == "from" and value and "$" not in value:
                    yield value
