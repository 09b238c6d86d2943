"""The images that are known: looked up in memory, written to the database."""

from __future__ import annotations

import json
import logging
import re
import threading
from dataclasses import replace
from typing import Final

from sandboxd.errors import BadRequest, NoSuchImage, NotFound
from sandboxd.images.documents import diff_ids
from sandboxd.images.image import HOST, Image
from sandboxd.images.reference import Reference
from sandboxd.store import Document, Store

_log = logging.getLogger("sandboxd.images")
_FULL_ID: Final = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
_SHORT_ID: Final = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")
_MEND: Final = "sandboxctl pull {}"


class Catalog:
    """Images by id and by tag. Finding one reads no file and no database."""

    def __init__(self, store: Store, host: Image) -> None:
        self._store, self._host = store, host
        self._mutex = threading.RLock()
        self._images: dict[str, Image] = {}
        self._tags: dict[str, str] = {}
        self._load()

    def all(self) -> tuple[Image, ...]:
        """Every image, `host` first, then the newest first."""
        with self._mutex:
            known = sorted(self._images.values(), key=lambda image: image.created, reverse=True)
        return (self._host, *known)

    def find(self, name: str) -> Image:
        """By tag, by `NAME@DIGEST`, by full or unique short id.

        Raises NoSuchImage in Docker's words; BadRequest for what can be neither.
        """
        with self._mutex:
            if (image := self._by_id(name)) is not None:
                return image
            if _FULL_ID.fullmatch(name):
                raise NoSuchImage.named(name)
            reference = Reference.parse(name)
            found = self._by_digest(reference) if reference.digest else self._by_tag(reference)
            if found is not None:
                return found
            if (image := self._by_short_id(name)) is not None:
                return image
        shown = str(reference) if reference.digest else reference.tagged
        raise NoSuchImage.named(shown, _MEND.format(shown))

    def add(self, image: Image, names: tuple[Reference, ...]) -> Image:
        """Commit an image under its names, which leave the images that had them."""
        with self._mutex:
            before = self._images.get(image.id)
            digests = tuple(dict.fromkeys((*(before.digests if before else ()), *image.digests)))
            with self._store.database.transaction(durable=True):
                self._store.database.images.put(image.id, _row(image, digests))
                for name in names:
                    self._store.database.tags.put(name.tagged, {"image": image.id})
            for name in names:
                self._tags[name.tagged] = image.id
            self._images[image.id] = replace(image, digests=digests)
            self._refresh()
            return self._images[image.id]

    def tag(self, image: Image, name: Reference) -> None:
        """Give an image one more name; the image that had it loses it."""
        with self._mutex:
            with self._store.database.transaction(durable=True):
                self._store.database.tags.put(name.tagged, {"image": image.id})
            self._tags[name.tagged] = image.id
            self._refresh()

    def untag(self, name: str) -> None:
        """Take a short name with its tag away from its image."""
        with self._mutex:
            with self._store.database.releasing():
                self._store.database.tags.delete(name)
            self._tags.pop(name, None)
            self._refresh()

    def forget(self, image: Image) -> bool:
        """Delete an image that has no name; its layers are for the collector.

        Whether it is gone by this call: somebody may have named it again in the meantime.
        """
        with self._mutex:
            found = self._images.get(image.id)
            if found is None or found.tags:
                return False
            with self._store.database.releasing():
                self._store.database.images.delete(image.id)
                self._store.database.manifests.delete(image.id)
            del self._images[image.id]
            return True

    def tagged_as(self, name: str) -> str | None:
        """The short name with its tag, when `name` names an image in that way."""
        with self._mutex:
            if self._by_id(name) is not None:
                return None
            reference = Reference.parse(name)
            is_tag = not reference.digest and reference.tagged in self._tags
            return reference.tagged if is_tag else None

    def _by_id(self, name: str) -> Image | None:
        full = name if name.startswith("sha256:") else f"sha256:{name}"
        if full == self._host.id:
            return self._host
        if full in self._images:
            return self._images[full]
        # The id of `host` changes with the machine's packages: containers remember an older one.
        row = self._store.database.images.get(full) if len(full) == 71 else None
        return self._host if row is not None and row.get("host") else None

    def _by_tag(self, reference: Reference) -> Image | None:
        if reference.tagged == f"{HOST}:latest":
            return self._host
        return self._images.get(self._tags.get(reference.tagged, ""))

    def _by_digest(self, reference: Reference) -> Image | None:
        wanted = f"{reference.name}@{reference.digest}"
        for image in self._images.values():
            named = any(tag.rpartition(":")[0] == reference.name for tag in image.tags)
            if wanted in image.digests or (named and image.id == reference.digest):
                return image
        return None

    def _by_short_id(self, name: str) -> Image | None:
        match = _SHORT_ID.fullmatch(name)
        if match is None:
            return None
        prefix = f"sha256:{match[1]}"
        found = [
            image for image in (self._host, *self._images.values()) if image.id.startswith(prefix)
        ]
        if len(found) > 1:
            raise BadRequest(f"ambiguous image id: {name}", "it is the beginning of more than one")
        return found[0] if found else None

    def _load(self) -> None:
        rows = self._store.database.images.all()
        for id, row in rows.items():
            if row.get("host"):
                continue
            try:
                self._images[id] = self._loaded(id, row)
            except (NotFound, ValueError, KeyError) as error:
                _log.warning("image %s is damaged, import it again: %s", id, error)
                self._store.database.images.delete(id)
        for name, tag in self._store.database.tags.all().items():
            if tag["image"] in self._images:
                self._tags[name] = tag["image"]
            else:
                self._store.database.tags.delete(name)
        if self._host.id not in rows:
            row = {"host": True, "layers": [], "blobs": []}
            self._store.database.images.put(self._host.id, row)
        self._refresh()

    def _loaded(self, id: str, row: Document) -> Image:
        with self._store.blobs.open(id) as blob:
            config = json.load(blob)
        layers = tuple(diff_ids(config))
        missing = [layer for layer in row["layers"] if not self._store.layers.has(layer)]
        if missing:
            raise NotFound(f"No such layer: {missing[0]}")
        digests, stack = tuple(row["digests"]), tuple(row["stack"])
        fields = (id, config, layers, (), row["created"], row["size"])
        on_host = bool(row.get("on_host"))
        return Image(*fields, digests=digests, stack=stack, on_host=on_host)

    def _refresh(self) -> None:
        """Bring the images' tags up to date with the table of tags."""
        tags: dict[str, list[str]] = {id: [] for id in self._images}
        for name, id in self._tags.items():
            tags[id].append(name)
        for id, image in self._images.items():
            self._images[id] = replace(image, tags=tuple(sorted(tags[id])))


def _row(image: Image, digests: tuple[str, ...]) -> Document:
    """`layers` and `blobs` are what the collector leaves alone."""
    return {
        "layers": list({**dict.fromkeys(image.layers), **dict.fromkeys(image.stack)}),
        "stack": list(image.stack),
        "blobs": [image.id],
        "created": image.created,
        "size": image.size,
        "digests": list(digests),
        "on_host": image.on_host,
    }
