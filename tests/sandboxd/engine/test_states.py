"""The life of a container as a table."""

from __future__ import annotations

import itertools

import pytest

from sandboxd.engine.states import TABLE, State, Step, after
from sandboxd.errors import Conflict


def test_a_container_can_be_restarted_and_then_removed() -> None:
    state = State.CREATED
    for step in (Step.START, Step.EXIT, Step.START, Step.EXIT, Step.REMOVE, Step.GONE):
        state = after(state, step, "n")
    assert state is State.REMOVED


def test_every_state_but_the_last_has_a_way_on() -> None:
    assert {state for state, _ in TABLE} == set(State) - {State.REMOVED}


def test_every_step_outside_the_table_is_a_conflict() -> None:
    for state, step in itertools.product(State, Step):
        if (state, step) not in TABLE:
            with pytest.raises(Conflict):
                after(state, step, "n")


def test_docker_clients_know_these_words() -> None:
    with pytest.raises(Conflict, match="stop the container before removing or force remove"):
        after(State.RUNNING, Step.REMOVE, "n")
    with pytest.raises(Conflict, match="removal of container n is already in progress"):
        after(State.REMOVING, Step.REMOVE, "n")
