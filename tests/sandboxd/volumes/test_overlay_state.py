"""A state root on overlayfs, as inside a Docker container: less is possible, nothing breaks."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sandboxd.errors import CannotEnforce, HostLacks
from sandboxd.images import Images
from sandboxd.linux import idmap, mount
from sandboxd.store import Store
from sandboxd.volumes import Volumes

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]

OpenVolumes = Callable[..., AbstractContextManager[tuple[Store, Volumes]]]
At = Callable[..., AbstractContextManager[Path]]

KEY = f"sha256:{'1' * 64}"


@pytest.fixture
def stacked(tmp_path: Path) -> Callable[[], None]:
    """Mounts an overlay where the state root will be; call it inside the namespace."""

    def stack() -> None:
        for name in ("lower", "upper", "work", "root"):
            (tmp_path / "outer" / name).mkdir(parents=True)
        layers = tuple(str(tmp_path / "outer" / name) for name in ("lower", "upper", "work"))
        (tmp_path / "root").mkdir(mode=0o700)
        mount.move_mount(mount.overlay(layers[:1], *layers[1:]), str(tmp_path / "root"))
        (tmp_path / "root").chmod(0o700)

    return stack


def test_volumes_start_from_snapshots_in_memory_or_as_copies(
    stacked: Callable[[], None], volumes: OpenVolumes, at: At, tmp_path: Path
) -> None:
    stacked()
    with volumes() as (_, made):
        scratch = made.create(scratch=True)
        (scratch.mountpoint / "file").write_text("original")
        made.seal(scratch, KEY, {})
        for name in (None, "named"):
            volume = made.create(name, snapshot=KEY)
            with at(made, volume) as place:
                assert (place / "file").read_text() == "original"
                (place / "file").write_text("changed")
            with at(made, volume) as place:
                assert (place / "file").read_text() == "changed"
        with pytest.raises(CannotEnforce, match="upper=disk"):
            made.create(snapshot=KEY, options={"upper": "disk"})
    with volumes() as (_, made), at(made, made.get("named")) as place:
        assert (place / "file").read_text() == "changed"
    mount.umount(str(tmp_path / "root"))


def test_images_without_whiteouts_work_and_others_say_what_is_missing(
    stacked: Callable[[], None], tmp_path: Path
) -> None:
    import tarfile

    def archive(name: str) -> io.BytesIO:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.addfile(tarfile.TarInfo(name))
        return io.BytesIO(buffer.getvalue())

    stacked()
    store = Store(tmp_path / "root", idmap.choose())
    images = Images(store, idmap.choose())
    image = images.import_rootfs(archive("file"), "plain")
    assert os.listdir(images.lowers(image)[0]) == ["file"]
    with pytest.raises(HostLacks, match="SANDBOX_ROOT"):
        images.import_rootfs(archive(".wh.gone"), "layered")
    host = images.rootfs(images.get("host"), upper=None, readonly=False).host
    assert host is not None
    assert "/etc/shadow" in host.hide or not os.path.exists("/etc/shadow")
    images.close()
    store.close()
    mount.umount(str(tmp_path / "root"))
