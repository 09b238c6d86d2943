"""Names, tags, filters and removal of images, in Docker's words."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandboxd.errors import BadRequest, Conflict, Forbidden, NoSuchImage
from sandboxd.images import Image, Images
from sandboxd.linux import idmap
from sandboxd.store import Store

pytestmark = [pytest.mark.needs_userns, pytest.mark.outer]

MakeTar = Callable[..., bytes]


@contextmanager
def _images(tmp_path: Path) -> Iterator[Images]:
    store = Store(tmp_path / "root", idmap.choose())
    images = Images(store, idmap.choose())
    yield images
    images.close()
    store.close()


def _import(images: Images, tar: MakeTar, name: str | None, *changes: str) -> Image:
    data = tar({"name": "f", "data": (name or "none").encode()})
    return images.import_rootfs(io.BytesIO(data), name, changes=changes)


def _names(images: Sequence[Image]) -> list[str]:
    return [tag for image in images for tag in image.tags if not image.is_host]


def test_a_tag_moves_to_the_image_that_gets_it_last(tmp_path: Path, tar: MakeTar) -> None:
    with _images(tmp_path) as images:
        first, second = _import(images, tar, "a"), _import(images, tar, "b")
        images.tag("b", "a")
        assert images.get("a").id == second.id
        assert images.get(first.id).tags == ()
        images.tag("b", "reg.test:5000/x/y", "v2")
        assert images.get(second.id).tags == ("a:latest", "b:latest", "reg.test:5000/x/y:v2")
        with pytest.raises(NoSuchImage):
            images.tag("nope", "c")
        with pytest.raises(BadRequest, match="invalid reference format"):
            images.tag("b", "UPPER")
        with pytest.raises(BadRequest, match="digest"):
            images.tag("b", "c@sha256:" + "a" * 64)
    with _images(tmp_path) as images:
        assert images.get("a").id == second.id


def test_the_name_host_is_taken(tmp_path: Path, tar: MakeTar) -> None:
    with _images(tmp_path) as images:
        image = _import(images, tar, "a")
        host = images.get("host")
        for name in ("host:latest", "docker.io/library/host", host.id, host.id[7:19]):
            assert images.get(name) == host
        assert host.is_host
        assert host.config["config"]["Cmd"] == ["/bin/sh"]
        with pytest.raises(NoSuchImage):
            images.get("host:other")
        with pytest.raises(Forbidden):
            images.tag("a", "host")
        with pytest.raises(Forbidden):
            images.tag("host", "mine")
        for name in ("host", host.id):
            with pytest.raises(Forbidden):
                images.remove(name, force=True)
        assert images.list()[0] == host
        assert images.get(image.id) == image


def test_removing_takes_names_first_and_the_image_with_the_last(
    tmp_path: Path, tar: MakeTar
) -> None:
    with _images(tmp_path) as images:
        image = _import(images, tar, "a")
        images.tag("a", "b", "2")
        assert images.remove("b:2") == [{"Untagged": "b:2"}]
        with pytest.raises(NoSuchImage):
            images.remove("b:2")
        assert images.remove("a") == [
            {"Untagged": "a:latest"},
            {"Deleted": image.id},
            {"Deleted": image.layers[0]},
        ]
        assert _names(images.list()) == []
        with pytest.raises(NoSuchImage):
            images.get(image.id)


def test_removing_by_id_needs_force_for_several_names(tmp_path: Path, tar: MakeTar) -> None:
    with _images(tmp_path) as images:
        image = _import(images, tar, "a")
        images.tag("a", "b")
        with pytest.raises(Conflict, match="referenced in multiple repositories"):
            images.remove(image.id[7:19])
        done = images.remove(image.id, force=True)
        assert {"Untagged": "b:latest"} in done
        assert {"Deleted": image.id} in done


def test_an_image_that_containers_use_stays_whatever_the_force(
    tmp_path: Path, tar: MakeTar
) -> None:
    with _images(tmp_path) as images:
        image = _import(images, tar, "a")
        users = {image.id: ["c" * 64]}
        with pytest.raises(Conflict, match=r"\(must force\) - container cccccccccccc is using"):
            images.remove("a", in_use=users)
        with pytest.raises(Conflict, match=r"\(must be forced\) - image is being used"):
            images.remove(image.id, in_use=users)
        assert images.remove("a", force=True, in_use=users) == [{"Untagged": "a:latest"}]
        assert images.get(image.id).tags == ()
        assert all(lower.is_dir() for lower in images.lowers(image))
        images.tag(image.id, "back")
        assert images.remove("back", in_use={}) != []


def test_filters(tmp_path: Path, tar: MakeTar) -> None:
    with _images(tmp_path) as images:
        old = _import(images, tar, "old", "LABEL tier=db")
        _import(images, tar, "user/app:1", "LABEL tier=web")
        _import(images, tar, None)

        def found(**filters: str) -> list[str]:
            return _names(images.list({key: [value] for key, value in filters.items()}))

        assert found(reference="old") == ["old:latest"]
        assert found(reference="o*:latest") == ["old:latest"]
        assert found(reference="*/app") == ["user/app:1"]
        assert found(reference="*app*") == []
        assert found(label="tier") == ["user/app:1", "old:latest"]
        assert found(label="tier=db") == ["old:latest"]
        assert found(since="old") == ["user/app:1"]
        assert found(before="user/app:1") == ["old:latest"]
        assert found(until="1h") == []
        assert found(until="2100-01-01") == ["user/app:1", "old:latest"]
        assert len(images.list({"dangling": ["true"]})) == 1
        assert old.id in {image.id for image in images.list({"dangling": ["0"]})}
        for key, value in (("zz", "1"), ("dangling", "maybe"), ("until", "soon")):
            with pytest.raises(BadRequest, match=f"invalid filter '{key}"):
                images.list({key: [value]})
        with pytest.raises(NoSuchImage):
            images.list({"since": ["nope"]})


def test_a_short_id_that_fits_two_images_is_ambiguous(tmp_path: Path, tar: MakeTar) -> None:
    with _images(tmp_path) as images:
        first: dict[str, Image] = {}
        for number in range(40):
            image = _import(images, tar, f"n{number}")
            digit = image.id[7]
            if digit in first:
                with pytest.raises(BadRequest, match="ambiguous"):
                    images.get(digit)
                return
            first[digit] = image
        raise AssertionError("40 digests without a common first digit")
