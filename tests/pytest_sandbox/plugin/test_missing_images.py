"""A factory's image that is not there is pulled by the fixture, as `docker run` would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox import connect

if TYPE_CHECKING:
    from tests.conftest import Registry, Service

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_busybox]


def test_containers_and_volumes_pull_their_images(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    service: Service,
    registry: Registry,
    busybox_tar: Path,
) -> None:
    monkeypatch.setenv("SANDBOX_HOST", service.host)
    names = [f"{registry.address}/team/missing:{number}" for number in (1, 2)]
    with connect(service.host, autostart=False) as client:
        for name in names:
            client.image_import(busybox_tar, name, message=name)
            client.image_push(name)
            client.image_remove(name)
    pytester.makepyfile(
        f"""
        from pytest_sandbox import container, volume

        filled = volume(commands=[["cp", "/etc/passwd", "there"]], image={names[1]!r})
        sleeping = container({names[0]!r}, ["sleep", "60"], volumes={{"/data": "filled"}})

        def test_it(sleeping):
            assert b"root" in sleeping.exec(["cat", "/data/there"]).stdout
        """
    )
    result = pytester.runpytest_subprocess("-o", "sandbox_prefetch=false")
    result.assert_outcomes(passed=1)
    with connect(service.host, autostart=False) as client:
        for name in names:
            client.image_remove(name, force=True)
