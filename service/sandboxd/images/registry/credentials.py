"""Who a registry's client is: from the docker command's configuration, or from a request's header.

https://docs.docker.com/reference/api/engine/#section/Authentication
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from sandboxd.docker_config import Credentials, credentials_for
from sandboxd.errors import BadRequest

__all__ = ["Credentials", "from_docker_config", "from_document", "from_header"]


def from_docker_config(domain: str, path: Path | None = None) -> Credentials | None:
    """See `sandboxd.docker_config.credentials_for`."""
    return credentials_for(domain, path)


def from_header(x_registry_auth: str) -> Credentials | None:
    """The header's base64url of a JSON object; None for an empty one. Raises BadRequest."""
    if not x_registry_auth.strip():
        return None
    padded = x_registry_auth.strip() + "=" * (-len(x_registry_auth.strip()) % 4)
    try:
        # docker-py writes the plain alphabet, the docker command the one for URLs.
        data = base64.b64decode(padded.replace("-", "+").replace("_", "/"), validate=True)
        document = json.loads(data or b"{}")
    except (binascii.Error, ValueError, RecursionError) as error:
        why = "not the base64 of a JSON object"
        raise BadRequest("invalid X-Registry-Auth header", why) from error
    return from_document(document)


def from_document(document: Any) -> Credentials | None:
    """AuthConfig of the Engine API; None where it names nobody. Raises BadRequest."""
    if document is None:
        return None
    if not isinstance(document, dict):
        raise BadRequest("invalid credentials", "not a JSON object")
    fields = {key.lower(): str(value or "") for key, value in document.items()}
    username, password = fields.get("username", ""), fields.get("password", "")
    token = fields.get("identitytoken", "")
    if not username and fields.get("auth"):
        try:
            decoded = base64.b64decode(fields["auth"], validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise BadRequest("invalid credentials", "auth is no base64") from error
        username, _, password = decoded.partition(":")
    return Credentials(username, password, token) if username or token else None
