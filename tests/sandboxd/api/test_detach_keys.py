"""The sequence that leaves a container running, found in any cutting of the input."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxd.api.detach_keys import DetachKeys
from sandboxd.errors import BadRequest


def typed(keys: DetachKeys, *pieces: bytes) -> tuple[bytes, bool]:
    out = b""
    for piece in pieces:
        passed, detached = keys.feed(piece)
        out += passed
        if detached:
            return out, True
    return out, False


def test_the_default_is_ctrl_p_ctrl_q() -> None:
    assert typed(DetachKeys.parse(""), b"ls\n\x10\x11rest") == (b"ls\n", True)


def test_a_half_sequence_is_passed_on_when_it_is_none() -> None:
    assert typed(DetachKeys.parse(""), b"\x10", b"\x10", b"x") == (b"\x10\x10x", False)


def test_other_keys() -> None:
    assert typed(DetachKeys.parse("a,ctrl-@,ctrl-["), b"a\0", b"\x1b") == (b"", True)


@pytest.mark.parametrize("keys", ["ctrl-", "ctrl-p,", "ctrl-pp", "alt-p", "é", "ctrl-1"])
def test_what_is_no_key(keys: str) -> None:
    with pytest.raises(BadRequest, match="detach keys"):
        DetachKeys.parse(keys)


@settings(database=None)
@given(st.binary(), st.integers(min_value=0, max_value=50))
def test_input_without_the_sequence_is_passed_on_whole(data: bytes, cut: int) -> None:
    data = data.replace(b"\x10", b"")
    assert typed(DetachKeys.parse(""), data[:cut], data[cut:]) == (data, False)
