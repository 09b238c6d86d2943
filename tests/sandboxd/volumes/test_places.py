"""Where an upper directory goes: the decision without a kernel, the probe with one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandboxd.errors import CannotEnforce
from sandboxd.linux import mount
from sandboxd.volumes.places import MEMORY_MAX, Abilities, Place, choose, free_memory, probe

MIB = 1 << 20
ALL = Abilities(disk_upper=True, memory_upper=True, sharing=False)
PLENTY = 64 << 30


@pytest.mark.parametrize(
    ("abilities", "size", "free", "ephemeral", "expected"),
    [
        (ALL, 40 * MIB, PLENTY, True, Place.MEMORY),
        (ALL, 40 * MIB, PLENTY, False, Place.DISK),
        (ALL, MEMORY_MAX, PLENTY, True, Place.DISK),
        (ALL, 40 * MIB, 100 * MIB, True, Place.DISK),
        (Abilities(True, True, sharing=True), 40 * MIB, PLENTY, True, Place.DISK),
        (Abilities(True, False, False), 40 * MIB, PLENTY, True, Place.DISK),
        (Abilities(False, True, False), 40 * MIB, PLENTY, True, Place.MEMORY),
        (Abilities(False, True, False), 40 * MIB, PLENTY, False, Place.COPY),
        (Abilities(False, False, False), 40 * MIB, PLENTY, True, Place.COPY),
    ],
)
def test_the_choice(
    abilities: Abilities, size: int, free: int, ephemeral: bool, expected: Place
) -> None:
    place = choose(abilities, size=size, free_memory=free, ephemeral=ephemeral, asked="")
    assert place is expected


def test_what_is_asked_for_is_given_or_refused() -> None:
    nothing = Abilities(False, False, False)
    for asked in ("disk", "memory"):
        place = choose(ALL, size=1 << 40, free_memory=0, ephemeral=True, asked=asked)
        assert place is Place(asked)
        with pytest.raises(CannotEnforce, match=f"upper={asked}"):
            choose(nothing, size=1, free_memory=PLENTY, ephemeral=True, asked=asked)


@pytest.mark.needs_userns
@pytest.mark.outer
def test_the_probe_tells_what_the_kernel_does_and_leaves_nothing(tmp_path: Path) -> None:
    for name in ("disk", "lower", "upper", "work", "stacked", "memory"):
        (tmp_path / name).mkdir()
    layers = tuple(str(tmp_path / name) for name in ("lower", "upper", "work"))
    mount.move_mount(mount.overlay(layers[:1], *layers[1:]), str(tmp_path / "stacked"))
    mount.move_mount(mount.new_filesystem("tmpfs"), str(tmp_path / "memory"))
    found = probe(tmp_path / "disk", tmp_path / "memory")
    assert found.disk_upper
    assert not found.sharing or os.statvfs(tmp_path).f_fsid
    assert not probe(tmp_path / "stacked", tmp_path / "memory").disk_upper
    assert os.listdir(tmp_path / "disk") == os.listdir(tmp_path / "memory") == []
    assert 0 < free_memory(tmp_path / "memory") <= PLENTY * 64
    mount.umount(str(tmp_path / "stacked"))
    mount.umount(str(tmp_path / "memory"))
