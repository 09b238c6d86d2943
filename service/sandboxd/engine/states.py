"""The life of a container as one table.

    created ──start──▶ running ──exit──▶ exited ──start──▶ running …
       │  ▲ fail                          │  ▲ fail
       └──┴── remove ──▶ removing ◀───────┘──┘
                            │ gone ──▶ removed          │ stuck ──▶ dead ── remove ──▶ removing

Every transition goes through `after`, and `Container.enter` writes what it led to exactly once.
"""

from __future__ import annotations

from enum import StrEnum

from sandboxd.errors import Conflict


class State(StrEnum):
    """`State.Status` in Docker's words; `removed` is never shown, for nobody finds it any more."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    REMOVING = "removing"
    DEAD = "dead"
    REMOVED = "removed"


class Step(StrEnum):
    START = "start"
    FAIL = "fail"
    EXIT = "exit"
    REMOVE = "remove"
    GONE = "gone"
    STUCK = "stuck"


TABLE: dict[tuple[State, Step], State] = {
    (State.CREATED, Step.START): State.RUNNING,
    (State.CREATED, Step.FAIL): State.CREATED,
    (State.CREATED, Step.REMOVE): State.REMOVING,
    (State.RUNNING, Step.EXIT): State.EXITED,
    (State.EXITED, Step.START): State.RUNNING,
    (State.EXITED, Step.FAIL): State.EXITED,
    (State.EXITED, Step.REMOVE): State.REMOVING,
    (State.DEAD, Step.REMOVE): State.REMOVING,
    (State.REMOVING, Step.GONE): State.REMOVED,
    (State.REMOVING, Step.STUCK): State.DEAD,
}

_REFUSALS: dict[tuple[State, Step], str] = {
    (State.RUNNING, Step.REMOVE): (
        'cannot remove container "/{name}": container is running: stop the container before '
        "removing or force remove"
    ),
    (State.REMOVING, Step.REMOVE): "removal of container {name} is already in progress",
    (State.REMOVING, Step.START): "container is marked for removal and cannot be started",
    (State.REMOVED, Step.START): "container is marked for removal and cannot be started",
    (State.DEAD, Step.START): "container is marked for removal and cannot be started",
}


def after(state: State, step: Step, name: str) -> State:
    """The state that `step` leads to. Raises Conflict where the table has no such step."""
    try:
        return TABLE[state, step]
    except KeyError:
        text = _REFUSALS.get((state, step), f"cannot {step} container {{name}}: it is {state}")
        raise Conflict(text.format(name=name)) from None
