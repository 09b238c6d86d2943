"""kill -9 at every step of a publish: what is found afterwards is whole, and can be made again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from sandboxd.linux import idmap
from sandboxd.store import Database, Store, durable

KEY = f"sha256:{'1' * 64}"
STEPS = 20


def _deadly(countdown: list[int], function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, after as many calls the process's end: before it acts, or after."""

    @wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        if countdown[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        countdown[0] -= 1
        result = function(*args, **kwargs)
        if countdown[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        countdown[0] -= 1
        return result

    return counted


def _killed_at(step: int, root: Path, act: Callable[[Store], object]) -> bool:
    """Run `act` on a store in a child that is killed at that step; False when it got to the end."""
    child = os.fork()
    if child == 0:
        store = Store(root, idmap.choose())
        countdown = [step]
        os.rename = _deadly(countdown, os.rename)
        durable.syncfs = _deadly(countdown, durable.syncfs)
        durable.sync_directory = _deadly(countdown, durable.sync_directory)
        Database.execute = _deadly(countdown, Database.execute)  # type: ignore[method-assign]
        act(store)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def _seal(store: Store) -> None:
    with store.staging("test") as staged:
        (staged / "tree/dir").mkdir(parents=True)
        (staged / "tree/dir/file").write_text("content")
        store.snapshots.seal(KEY, staged / "tree", base=None, spec={})


def _publish(store: Store) -> None:
    with store.staging("test") as staged:
        (staged / "tree/dir").mkdir(parents=True)
        (staged / "tree/dir/file").write_text("content")
        store.layers.publish(KEY, staged / "tree", {"size": 7})


@pytest.mark.parametrize("step", range(STEPS))
def test_a_seal_that_was_killed_left_all_or_nothing(tmp_path: Path, step: int) -> None:
    root = tmp_path / "root"
    _killed_at(step, root, _seal)
    store = Store(root, idmap.choose())
    found = store.snapshots.get(KEY)
    if found is not None:
        assert (found.layers[0] / "dir/file").read_text() == "content"
    else:
        assert os.listdir(root / "snapshots") == []
    assert os.listdir(root / "staging") == []
    _seal(store)
    sealed = store.snapshots.get(KEY)
    assert sealed is not None
    assert (sealed.layers[0] / "dir/file").read_text() == "content"
    store.close(patience=100)
    assert os.listdir(root / "trash") == []


@pytest.mark.parametrize("step", range(STEPS))
def test_a_layer_that_was_killed_left_all_or_nothing(tmp_path: Path, step: int) -> None:
    root = tmp_path / "root"
    _killed_at(step, root, _publish)
    store = Store(root, idmap.choose())
    if store.layers.has(KEY):
        assert (store.layers.path(KEY) / "dir/file").read_text() == "content"
    else:
        assert os.listdir(root / "layers/sha256") == []
    _publish(store)
    assert store.layers.has(KEY)


def test_the_steps_above_reach_the_end(tmp_path: Path) -> None:
    killed = [_killed_at(step, tmp_path / str(step), _seal) for step in (0, STEPS, 100)]
    assert killed == [True, False, False]


def test_work_in_progress_of_a_living_process_is_not_swept(tmp_path: Path) -> None:
    ready, tell = os.pipe()
    hold, let_go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(let_go)
        store = Store(tmp_path / "root", idmap.choose())
        with store.staging("busy") as staged:
            (staged / "half").touch()
            os.write(tell, staged.name.encode())
            os.read(hold, 1)
        os._exit(0)
    name = os.read(ready, 200).decode()
    store = Store(tmp_path / "root", idmap.choose())
    assert os.listdir(tmp_path / "root/staging") == [name]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(let_go)
    store.close()
    Store(tmp_path / "root", idmap.choose()).close()
    assert os.listdir(tmp_path / "root/staging") == []
