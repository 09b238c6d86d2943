"""Images from registries: who asks, and what the service tells meanwhile."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_sandbox.client.images import progress_entries
from pytest_sandbox.client.targets import image_part, with_query
from pytest_sandbox.client.transport import Request

if TYPE_CHECKING:
    from pytest_sandbox.client.session import Client

_T = TypeVar("_T")

Credentials = tuple[str, str]
"""A user name and a password or token."""

PullProgress = Callable[[dict[str, Any]], None]
"""Called with each of Docker's progress objects: `status`, `id`, `progressDetail`."""

_STATUS = "Status: "


def pull_request(reference: str, platform: str | None, credentials: Credentials | None) -> Request:
    """POST /images/create; the credentials are those of the docker command's configuration, unless
    others are given. Raises BadRequest for a configuration that is damaged, HostLacks for a
    credential helper that fails."""
    query = {"fromImage": reference, "platform": platform}
    headers = registry_headers(reference, credentials)
    return Request("POST", with_query("/images/create", query), b"", headers)


def look_up_request(reference: str) -> Request:
    """GET /distribution/{name}/json, which asks the registry and fetches no image."""
    headers = registry_headers(reference)
    return Request("GET", f"/distribution/{image_part(reference)}/json", b"", headers)


def registry_headers(reference: str, credentials: Credentials | None = None) -> dict[str, str]:
    """X-Registry-Auth for the registry of an image's name; nothing where nobody is logged in."""
    from sandboxd.docker_config import credentials_for, domain_of

    domain = domain_of(reference)
    if credentials is not None:
        who = {"username": credentials[0], "password": credentials[1]}
    elif (found := credentials_for(domain)) is not None:
        username, password, token = found
        who = {"username": username, "password": password, "identitytoken": token}
    else:
        return {}
    encoded = urlsafe_b64encode(json.dumps({**who, "serveraddress": domain}).encode())
    return {"X-Registry-Auth": encoded.decode()}


def followed(pieces: Iterable[bytes], progress: PullProgress | None) -> str:
    """Follow a pull to its end; the image's full name. Raises the error that ended it."""
    name = ""
    for entry in progress_entries(pieces):
        status = str(entry.get("status", ""))
        if status.startswith(_STATUS):
            name = status.rpartition(" for ")[2]
        if progress is not None:
            progress(entry)
    return name


def with_image(client: Client, image: str, call: Callable[[], _T]) -> _T:
    """What `call` returns, if need be after a pull of the image that it needs."""
    try:
        return call()
    except Exception as error:
        pull_missing(client, image, error)
    return call()


def pull_missing(client: Client, image: str, error: Exception) -> None:
    """Pull the image whose absence `error` is about. Raises it where it is about something else,
    or where no pull is wanted, and NoSuchImage with the reason when the pull fails."""
    from pytest_sandbox.errors import NoSuchImage, SandboxError

    if not (isinstance(error, NoSuchImage) and client.pulls_missing and image):
        raise error
    try:
        (client.fetch_image or client.pull)(image)
    except SandboxError as failure:
        why = f"{failure.what}: {failure.why}" if failure.why else failure.what
        mend = failure.mend or error.mend
        raise NoSuchImage(error.what, f"pulling it failed: {why}", mend) from failure
