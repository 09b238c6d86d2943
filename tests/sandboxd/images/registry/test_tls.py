"""A registry behind TLS, whose certificate the settings say to trust."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandboxd.errors import RegistryError
from sandboxd.images.reference import Reference
from sandboxd.images.registry.client import RegistryClient
from sandboxd.images.registry.settings import RegistrySettings

if TYPE_CHECKING:
    from tests.sandboxd.images.registry.conftest import DockerRegistry

pytestmark = [pytest.mark.needs_registry, pytest.mark.needs_openssl]


def asked(settings: Path, authority: str, more: str) -> int:
    """The status of GET /v2/, with settings of that registry's own."""
    with settings.open("a") as file:
        file.write(f'[registry."{authority}"]\nplain-http = false\n{more}')
    reference = Reference.parse(f"{authority}/team/none:1")
    with RegistryClient(reference, RegistrySettings.load(), None) as client:
        return client.request("GET", "tags/list", expect=(200, 404)).status


def test_a_certificate_that_the_settings_trust(
    quick_settings: Path, tls_registry: tuple[DockerRegistry, Path]
) -> None:
    registry, certificate = tls_registry
    assert asked(quick_settings, registry.authority, f'ca-file = "{certificate}"\n') == 404


def test_a_certificate_that_nobody_trusts(
    quick_settings: Path, tls_registry: tuple[DockerRegistry, Path]
) -> None:
    with pytest.raises(RegistryError, match="self-signed certificate") as caught:
        asked(quick_settings, tls_registry[0].authority, "")
    assert "ca-file" in str(caught.value.mend)


def test_a_server_that_speaks_no_tls(quick_settings: Path, docker_registry: DockerRegistry) -> None:
    with pytest.raises(RegistryError) as caught:
        asked(quick_settings, docker_registry.authority, "")
    assert "plain-http" in str(caught.value.mend)


def test_a_ca_file_that_is_not_there(
    quick_settings: Path, tls_registry: tuple[DockerRegistry, Path]
) -> None:
    with pytest.raises(RegistryError, match=r"ca-file /nowhere.pem .*No such file"):
        asked(quick_settings, tls_registry[0].authority, 'ca-file = "/nowhere.pem"\n')
