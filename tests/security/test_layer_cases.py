"""Images whose layers aim at the host or at each other: loaded through the socket, and run.

Each layer may be honest by itself: a link in one, and in the next a file behind that link. Either
the load is refused, or the container sees its own files only. The canary on the host never changes,
and nothing gets mounted there.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox import Client
from pytest_sandbox.errors import BadRequest

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]

Member = dict[str, Any]
Layers = list[list[Member]]
Loaded = Callable[[Layers], str]

OUT = "{canary}"
_OPAQUE = ".wh..wh..opq"


def file(name: str, data: bytes = b"own", **more: Any) -> Member:
    return {"name": name, "data": data, **more}


def link(name: str, target: str) -> Member:
    return {"name": name, "type": tarfile.SYMTYPE, "linkname": target, "mode": 0o777}


def hard(name: str, target: str) -> Member:
    return {"name": name, "type": tarfile.LNKTYPE, "linkname": target}


def directory(name: str, mode: int = 0o755, **more: Any) -> Member:
    return {"name": name, "type": tarfile.DIRTYPE, "mode": mode, **more}


def device(name: str, major: int, minor: int, kind: bytes = tarfile.CHRTYPE) -> Member:
    return {"name": name, "type": kind, "devmajor": major, "devminor": minor, "mode": 0o666}


def _archive(members: Iterable[Member]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for fields in map(dict, members):
            data = fields.pop("data", b"")
            info = tarfile.TarInfo(fields.pop("name"))
            info.size = len(data)
            for name, value in fields.items():
                setattr(info, name, value)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def _saved(*layers: bytes) -> bytes:
    """What `docker save` would write of an image of these layers, without a name."""
    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {},
         "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()  # fmt: skip
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": None, "Layers": names}]
    parts = {"config.json": config, **dict(zip(names, layers, strict=True))}
    parts["manifest.json"] = json.dumps(manifest).encode()
    return _archive(file(name, data) for name, data in parts.items())


@pytest.fixture
def loaded(client: Client, busybox_tar: Path, canary: Path) -> Loaded:
    """Load an image of busybox and these layers above it; its id."""

    def load(layers: Layers) -> str:
        aimed = [
            [
                {
                    key: value.replace(OUT, str(canary)) if isinstance(value, str) else value
                    for key, value in member.items()
                }
                for member in layer
            ]
            for layer in layers
        ]
        data = _saved(busybox_tar.read_bytes(), *map(_archive, aimed))
        (name,) = client.image_load(io.BytesIO(data))
        return name

    return load


_UP = "../" * 12

_OUTWARD: dict[str, Layers] = {
    "file behind a link of the layer below": [[link("out", OUT)], [file("out/secret")]],
    "file behind a relative link": [[link("a/out", _UP + OUT)], [file("a/out/secret")]],
    "file behind two links": [[link("b", OUT), link("a", "b")], [file("a/secret")]],
    "file behind a link of its own layer": [[link("out", OUT), file("out/secret")]],
    "file behind a link that replaced a directory": [
        [directory("out"), file("out/x")],
        [link("out", OUT)],
        [file("out/secret")],
    ],
    "file behind a link that replaced a directory of its layer": [
        [directory("out"), file("out/x"), link("out", OUT), file("out/secret")]
    ],
    "directory over a link": [[link("out", OUT)], [directory("out", 0o777)]],
    "directory over a link of its layer": [[link("out", OUT), directory("out", 0o777)]],
    "file over a link": [[link("f", f"{OUT}/secret")], [file("f", b"!", mode=0o777)]],
    "whiteout behind a link": [[link("out", OUT)], [file("out/.wh.secret", b"")]],
    "whiteout behind a link of its layer": [[link("out", OUT), file("out/.wh.secret", b"")]],
    "whiteout of a link": [[link("out", OUT)], [file(".wh.out", b"")]],
    "opaque mark behind a link": [[link("out", OUT)], [file(f"out/{_OPAQUE}", b"")]],
    "hard link behind a link": [[link("out", OUT)], [hard("own", "out/secret")]],
    "hard link behind a link of its layer": [[link("out", OUT), hard("own", "out/secret")]],
    "hard link by an absolute name": [[hard("own", f"{OUT}/secret"), file("own", b"!")]],
    "hard link to a link": [[link("l", f"{OUT}/secret"), hard("own", "l"), file("own", b"!")]],
    "link to /proc": [[link("out", f"/proc/self/root/{OUT}")], [file("out/secret")]],
    "link to /proc in the layer": [[link("out", f"/proc/1/root/{OUT}"), file("out/secret")]],
    "link named slash dot": [[link("/.", OUT), file("./secret")]],
    "link named dot slash": [[link("./", OUT), file("secret")]],
    "root as a link, then a directory": [[link("/", OUT), directory("/", 0o777)]],
    "a name that climbs": [[file("../" * 12 + OUT + "/secret")]],
    "a name that climbs behind a link": [[link("a", "b"), file("a/../../../x")]],
    "a reserved name as a directory": [[link(".wh.d", OUT), file(".wh.d/secret")]],
    "a link to a reserved name": [[link("d", ".wh.d"), file("d/secret")]],
    "aufs's own directory": [[link(".wh..wh.plnk", OUT), file(".wh..wh.plnk/secret")]],
}


def image_ids(client: Client) -> set[str]:
    return {each.id for each in client.images()}


@pytest.mark.parametrize("case", _OUTWARD)
def test_layers_that_aim_outward(client: Client, loaded: Loaded, case: str) -> None:
    before = image_ids(client)
    try:
        image = loaded(_OUTWARD[case])
    except BadRequest:
        assert image_ids(client) == before
        return
    try:
        script = 'find / -xdev -type f -exec grep -l "of the host" {} +; find / -xdev -name ".wh.*"'
        found = client.run(image, ["/bin/sh", "-c", script])
        assert found.stdout == b"", found
    finally:
        client.image_remove(image, force=True)
    assert client.status()["Root"] not in Path("/proc/self/mountinfo").read_text()


_XATTR = "SCHILY.xattr."
_INWARD: dict[str, tuple[Layers, str, str]] = {
    "a character device 0:0 hides nothing": (
        [[device("etc", 0, 0)]],
        "head -n1 /etc/group",
        "root:x:0:",
    ),
    "a device is not made": (
        [[device("n", 1, 3), device("d", 8, 0, tarfile.BLKTYPE), hard("n2", "n")]],
        "ls -d /n /d /n2",
        "",
    ),
    "overlay attributes of an archive count for nothing": (
        [
            [directory("d"), file("d/below")],
            [
                directory("d", pax_headers={f"{_XATTR}user.overlay.opaque": "y",
                                            f"{_XATTR}trusted.overlay.opaque": "y",
                                            f"{_XATTR}user.overlay.redirect": "/etc"}),
                file("d/above", pax_headers={f"{_XATTR}user.overlay.metacopy": "",
                                             f"{_XATTR}user.overlay.redirect": "/etc/passwd"}),
            ],
        ],
        "ls /d; cat /d/above",
        "above below own",
    ),
    "a whiteout hides what is below and nothing else": (
        [[file("d/a"), file("e/a")], [file(".wh.d", b""), file("d/b"), file(f"e/{_OPAQUE}", b"")]],
        "ls /d /e",
        "/d: b /e:",
    ),
    "an opaque mark that comes late": (
        [[file("d/a")], [file("d/b"), file(f"d/{_OPAQUE}", b"")]],
        "ls /d",
        "b",
    ),
    "a whiteout through a link of its own layer": (
        [[file("d/a")], [link("l", "/d"), file("l/.wh.a", b"")]],
        "ls /d; readlink /l",
        "/d",
    ),
    "a parent that nobody named is what it is below": (
        [[directory("tmp", 0o1777)], [file("tmp/x")], [file("tmp/y")]],
        "stat -c %a /tmp; ls /tmp",
        "1777 x y",
    ),
    "a layer that comes twice": (
        [[file("d/a")], [file(".wh.d", b"")], [file("d/a")]],
        "ls /d",
        "a",
    ),
    "the last of two counts": ([[file("f", b"1"), directory("f"), file("f", b"2")]], "cat /f", "2"),
    "an owner beyond 32 bits is not root": (
        [[file("f", mode=0o4755, pax_headers={"uid": str(1 << 32), "gid": str(1 << 32)})]],
        "stat -c %u:%a /f",
        "65534:755",
    ),
    "a file that blocks is only there": (
        [[{"name": "etc/motd", "type": tarfile.FIFOTYPE, "mode": 0o644}]],
        "test -p /etc/motd && echo pipe",
        "pipe",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", _INWARD)
def test_layers_that_aim_at_each_other(client: Client, loaded: Loaded, case: str) -> None:
    layers, script, expected = _INWARD[case]
    image = loaded(layers)
    try:
        found = client.run(image, ["/bin/sh", "-c", script])
    finally:
        client.image_remove(image, force=True)
    if "single" in client.status()["IdMap"]:
        # All owners are one there, which the container's user is, whatever its number.
        expected = expected.replace("65534:755", "0:4755")
    assert " ".join(found.stdout.decode().split()) == expected, found
