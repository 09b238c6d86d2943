"""The images of one state root: found, listed, taken in, named, removed, and made into roots."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from sandboxd.errors import BadRequest, Conflict, Forbidden, SandboxError
from sandboxd.images.catalog import Catalog
from sandboxd.images.documents import parsed_object
from sandboxd.images.filters import Filters, selected
from sandboxd.images.host import HostImage
from sandboxd.images.host_layers import repeat_places
from sandboxd.images.image import HOST, Image
from sandboxd.images.image_archive import ImageArchive
from sandboxd.images.pulled import PulledManifests
from sandboxd.images.pushing import Pushed, Pusher, PushOptions, pushed_names
from sandboxd.images.reference import HUB, Reference
from sandboxd.images.registry.credentials import Credentials
from sandboxd.images.registry.crew import Crew
from sandboxd.images.registry.flights import Flights
from sandboxd.images.registry.manifests import Descriptor
from sandboxd.images.registry.platforms import Platform
from sandboxd.images.registry.pull import RegistrySource
from sandboxd.images.registry.resolution import look_up
from sandboxd.images.registry.settings import RegistrySettings
from sandboxd.images.rootfs_archive import RootfsArchive
from sandboxd.images.sources import Arrival, ImageSource, Progress, Workbench
from sandboxd.images.stacking import stack
from sandboxd.images.tar import Limits
from sandboxd.launcher.spec import Rootfs
from sandboxd.linux.idmap import IdMap
from sandboxd.store import Store
from sandboxd.store.digests import Reader, digest_of


def _silent(_: dict[str, Any]) -> None:
    """The progress of somebody who does not want to know."""


class Images:
    """`show` are host paths that every container of the image `host` sees, read-only; `hide` are
    directories of the service that none may see, the state root apart, which is known."""

    def __init__(
        self,
        store: Store,
        idmap: IdMap,
        *,
        show: Sequence[str] = (),
        hide: Sequence[str] = (),
        limits: Limits | None = None,
    ) -> None:
        self._store, self._idmap, self._limits = store, idmap, limits or Limits()
        self._host = HostImage(store, idmap, show, hide)
        self._catalog = Catalog(store, self._host.image)
        self._crew, self._flights = Crew(), Flights()

    def close(self) -> None:
        self._crew.close()
        self._host.close()

    def get(self, name: str) -> Image:
        """By name, `NAME@DIGEST`, id or unique short id. Raises NoSuchImage, BadRequest."""
        return self._catalog.find(name)

    def list(self, filters: Filters | None = None) -> Sequence[Image]:
        """`host` first, then the newest first."""
        return selected(self._catalog.all(), filters or {}, self.get)

    def import_rootfs(
        self,
        stream: Reader,
        reference: str | None,
        *,
        message: str = "",
        changes: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> Image:
        """An image of one layer from the tar archive of a root file system, compressed or not.

        `changes` are Dockerfile instructions for its config. Blocks; raises BadRequest, NoSpace,
        Forbidden for the name `host`. Whatever fails, nothing is left.
        """
        name = None if reference is None else self._nameable(reference)
        source = RootfsArchive(stream, name, message, tuple(changes))
        return self.take(source, progress)[0]

    def load(self, stream: Reader, progress: Progress | None = None) -> Sequence[str]:
        """All images of an archive of `docker save` or an OCI layout, compressed or not.

        Returns their names, or the id of one that has none. Blocks and fails like `import_rootfs`.
        """
        return [
            name
            for image, arrival in self._taken(ImageArchive(stream), progress)
            for name in ([each.tagged for each in arrival.names] or [image.id])
        ]

    def pull(
        self,
        reference: str,
        *,
        platform: str = "",
        credentials: Credentials | None = None,
        progress: Progress | None = None,
        cancelled: threading.Event | None = None,
    ) -> Image:
        """The image that a registry has under this name, fetched as far as it is not here yet.

        `platform` is `OS/ARCH[/VARIANT]`, else this machine's. Blocks, until `cancelled` is set
        at the latest; raises NoSuchImage, Forbidden, RegistryError, BadRequest, NoSpace,
        Unavailable. Whatever fails, nothing is left.
        """
        name = self._pullable(reference)
        source = RegistrySource(
            name,
            RegistrySettings.load(),
            credentials,
            Platform.parse(platform) if platform else None,
            self._crew,
            self._flights,
            cancelled or threading.Event(),
        )
        tell = progress or _silent
        shown = str(name) if name.digest else name.tagged
        previous = self._id_of(shown)
        if previous is None:
            self._crew.prewarm()
        image = self.take(source, tell)[0]
        assert source.resolved is not None
        PulledManifests(self._store).record(image.id, source.resolved.manifest)
        news = "Image is up to date" if previous == image.id else "Downloaded newer image"
        tell({"status": f"Status: {news} for {shown}"})
        return image

    def push(
        self,
        reference: str,
        *,
        index: Sequence[str] = (),
        options: PushOptions | None = None,
        credentials: Credentials | None = None,
        progress: Progress | None = None,
        cancelled: threading.Event | None = None,
    ) -> Sequence[Pushed]:
        """Push an image, or all tags of its repository where `reference` has none; with `index`,
        these images as one index.

        Blocks, until `cancelled` is set at the latest; raises NotFound for a tag that is not here,
        Forbidden, RegistryError, BadRequest, NoSpace, Unavailable.
        """
        options = options or PushOptions()
        options.check()
        name = self._pullable(reference, "push")
        if name.digest:
            raise BadRequest("cannot push a digest reference")
        tell = progress or _silent
        parts = [self.get(each) for each in index]
        wanted = [] if parts else pushed_names(self.list(), name)
        tell({"status": f"The push refers to repository [{name.domain}/{name.path}]"})
        pusher = Pusher(
            self._store,
            self._idmap,
            name,
            RegistrySettings.load(),
            credentials,
            tell,
            options,
            cancelled or threading.Event(),
        )
        pusher.may_mount_from(parts or [image for image, _ in wanted])
        try:
            if parts:
                return [pusher.push_index(parts, name.tag or "latest")]
            return [self._pushed(pusher, name, image, tag) for image, tag in wanted]
        finally:
            # The compressed blobs have served their purpose; registries keep theirs by roots.
            self._store.collect()

    def _pushed(self, pusher: Pusher, name: Reference, image: Image, tag: str) -> Pushed:
        pushed = pusher.push(image, tag)
        if self._id_of(image.id) is not None:
            known_as = f"{name.name}@{pushed.digest}"
            self._catalog.add(replace(image, digests=(known_as,)), ())
        return pushed

    def look_up(
        self, reference: str, credentials: Credentials | None = None
    ) -> tuple[Descriptor, tuple[Platform, ...]]:
        """What the registry has under this name, and for which platforms. Blocks, raises like
        `pull`."""
        settings = RegistrySettings.load().impatient()
        return look_up(self._pullable(reference), settings, credentials)

    def take(self, source: ImageSource, progress: Progress | None = None) -> Sequence[Image]:
        """The images of any source: all of them, or an error and none. Blocks."""
        return [image for image, _ in self._taken(source, progress)]

    def tag(self, name: str, repo: str, tag: str = "") -> None:
        """Give the image `name` the name `repo:tag` as well, taking it from one that has it."""
        image = self.get(name)
        reference = self._nameable(f"{repo}:{tag}" if tag else repo)
        if image.is_host:
            raise Forbidden("tag image host", "the machine's own root goes by its own name only")
        self._catalog.tag(image, reference)

    def remove(
        self,
        name: str,
        force: bool = False,
        noprune: bool = False,
        in_use: Mapping[str, Sequence[str]] | None = None,
    ) -> Sequence[dict[str, str]]:
        """Take away a name and, with the last one, the image; Docker's list of what was done.

        `in_use` maps image ids to the containers that use them. `noprune` is about parent images,
        which there are none of. Raises Conflict, in Docker's words, where force is missing; with
        force an image that containers use loses its names only.
        """
        image = self.get(name)
        if image.is_host:
            raise Forbidden("remove image host", "it is this machine's own root")
        users = list((in_use or {}).get(image.id, ()))
        tag = self._catalog.tagged_as(name)
        if not force:
            _refuse_conflicts(image, tag, users)
        names = [tag] if tag is not None else list(image.tags)
        for each in names:
            self._catalog.untag(each)
        done = [{"Untagged": each} for each in names]
        if users or not self._catalog.forget(image):
            return done
        layers = self._store.collect().layers
        return [*done, *({"Deleted": digest} for digest in (image.id, *layers))]

    def rootfs(
        self, image: Image, *, upper: str | None, readonly: bool, show: Sequence[str] = ()
    ) -> Rootfs:
        """What the launcher makes a container's root of; `show` counts for `host` only."""
        layers = tuple(self._store.layers.path(layer) for layer in image.stack)
        if image.is_host or image.on_host:
            return Rootfs(upper=upper, readonly=readonly, host=self._host.root(show, layers))
        return Rootfs(tuple(str(path) for path in layers), upper, readonly)

    def host_rootfs(self, layers: Sequence[Path], upper: str, places: Path) -> Rootfs:
        """The machine's own root with `layers` on top, topmost first; writes go to `upper`.

        `places` is an empty directory, for what makes /usr/local and the like writable.
        """
        if self._idmap.kind != "root":
            repeat_places(self._host.root(), places)
        return Rootfs(upper=upper, host=self._host.root((), (*layers, places)))

    def lowers(self, image: Image) -> tuple[Path, ...]:
        """The directories whose union is the image, topmost first."""
        layers = tuple(self._store.layers.path(layer) for layer in image.stack)
        return (*layers, *self._host.lowers()) if image.is_host or image.on_host else layers

    def _taken(
        self, source: ImageSource, progress: Progress | None
    ) -> Sequence[tuple[Image, Arrival]]:
        try:
            with ExitStack() as held:
                return self._received(source, progress or _silent, held)
        except SandboxError:
            # What was published before the failure has no image that refers to it.
            self._store.collect()
            raise

    def _received(
        self, source: ImageSource, progress: Progress, held: ExitStack
    ) -> Sequence[tuple[Image, Arrival]]:
        directory = held.enter_context(self._store.staging("image"))
        bench = Workbench(self._store, self._idmap, directory, held, progress, self._limits)
        try:
            arrivals = tuple(source.arrivals(bench))
            configs = [self._checked(arrival) for arrival in arrivals]
            for arrival in arrivals:
                bench.publish(arrival)
            images = [
                self._image(bench, arrival, config)
                for arrival, config in zip(arrivals, configs, strict=True)
            ]
        except OSError as error:
            raise SandboxError.from_os("take in an image", error) from error
        return [
            (self._catalog.add(image, arrival.names), arrival)
            for image, arrival in zip(images, arrivals, strict=True)
        ]

    def _checked(self, arrival: Arrival) -> dict[str, Any]:
        for name in arrival.names:
            self._nameable(str(name))
        return parsed_object(arrival.config, "image config")

    def _image(self, bench: Workbench, arrival: Arrival, config: dict[str, Any]) -> Image:
        size = sum(self._store.layers.metadata(layer)["size"] for layer in arrival.layers)
        created = str(config.get("created") or "0001-01-01T00:00:00Z")
        fields = (digest_of(arrival.config), config, arrival.layers, (), created, size)
        layers = stack(bench, arrival.layers)
        return Image(*fields, digests=arrival.digests, stack=layers, on_host=arrival.on_host)

    def _pullable(self, text: str, action: str = "pull") -> Reference:
        reference = Reference.parse(text)
        if (reference.name, reference.domain) == (HOST, HUB):
            raise Forbidden(
                f"{action} of image {HOST}", "the name stands for this machine's own root"
            )
        return reference

    def _id_of(self, name: str) -> str | None:
        try:
            return self.get(name).id
        except SandboxError:
            return None

    def _nameable(self, text: str) -> Reference:
        reference = Reference.parse(text)
        if reference.digest:
            raise BadRequest("refusing to create a tag with a digest reference")
        if reference.name == HOST:
            raise Forbidden(f"image name {HOST}", "it stands for this machine's own root")
        return reference


def _refuse_conflicts(image: Image, tag: str | None, users: Sequence[str]) -> None:
    short = image.id.removeprefix("sha256:")[:12]
    if tag is None and len(image.tags) > 1:
        what = f"conflict: unable to delete {short} (must be forced)"
        raise Conflict(f"{what} - image is referenced in multiple repositories")
    if users and tag is None:
        what = f"conflict: unable to delete {short} (must be forced)"
        raise Conflict(f"{what} - image is being used by container {users[0][:12]}")
    if users and len(image.tags) == 1:
        what = f'conflict: unable to remove repository reference "{tag}" (must force)'
        raise Conflict(f"{what} - container {users[0][:12]} is using its referenced image {short}")
