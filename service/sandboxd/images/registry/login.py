"""Whether a registry accepts somebody's credentials: `docker login`."""

from __future__ import annotations

from contextlib import closing
from typing import Final
from urllib.parse import urlsplit

from sandboxd.docker_config import HUB, HUB_SERVERS
from sandboxd.errors import BadRequest, Forbidden, RegistryError
from sandboxd.images.registry.credentials import Credentials
from sandboxd.images.registry.origin import Origin
from sandboxd.images.registry.settings import RegistrySettings

_REFUSED: Final = "unauthorized: incorrect username or password"


def log_in(server: str, credentials: Credentials | None) -> None:
    """`server` is a registry's name or URL, empty for Docker Hub.

    Raises Forbidden when the registry refuses, RegistryError when it does not answer as one.
    """
    domain = _domain(server)
    settings = RegistrySettings.load().impatient()
    endpoint = settings.endpoints(domain)[-1]
    with closing(Origin(endpoint, settings.network, credentials, ())) as origin:
        try:
            response = origin.request("GET", f"{endpoint.url}/v2/", {})
        except Forbidden as error:
            raise Forbidden(f"login to {domain}", _REFUSED) from error
        response.close()
    if response.status in (401, 403):
        raise Forbidden(f"login to {domain}", _REFUSED)
    if response.status != 200:
        raise RegistryError(f"login to {domain}", f"status {response.status}")


def _domain(server: str) -> str:
    try:
        domain = urlsplit(server if "://" in server else f"//{server}").netloc
    except ValueError:
        raise BadRequest(f"{server[:200]!r} names no registry") from None
    return HUB if domain in ("", HUB, *HUB_SERVERS) else domain
