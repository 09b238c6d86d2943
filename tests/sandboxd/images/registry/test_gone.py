"""Whoever pulls goes away, or the service is stopped, while a registry says nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from pytest_sandbox import connect
from tests.sandboxd.images.registry.scripted import Asked, Reply

if TYPE_CHECKING:
    from tests.conftest import Service

pytestmark = [pytest.mark.needs_userns]


class _Silent:
    """Holds the first request whose path contains `part` until the test is over."""

    def __init__(self, part: str) -> None:
        self._part = part
        self.reached, self.over = threading.Event(), threading.Event()

    def __call__(self, asked: Asked) -> Reply | None:
        if self._part in asked.path:
            self.reached.set()
            self.over.wait(30)
        return None


@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
def test_the_service_stops_in_the_middle_of_a_pull(
    own_service: Service, scripted: Callable[..., Any], tar: Callable[..., bytes], part: str
) -> None:
    with scripted() as registry:
        registry.add_image(tar({"name": "a"}))
        silent = _Silent(part)
        registry.script(silent)
        name = f"{registry.authority}/app:1"
        client = connect(own_service.host, autostart=False)
        failures: list[Exception] = []

        def pull() -> None:
            try:
                client.pull(name)
            except Exception as error:
                failures.append(error)

        puller = threading.Thread(target=pull)
        puller.start()
        assert silent.reached.wait(30)
        assert own_service.stop() == 0, own_service.log.read_text()
        silent.over.set()
        puller.join()
        client.close()
        assert len(failures) == 1
        assert not list((own_service.root / "staging").iterdir())


def test_a_client_that_leaves_ends_its_pull(
    own_service: Service, scripted: Callable[..., Any], tar: Callable[..., bytes]
) -> None:
    with scripted() as registry:
        registry.add_image(tar({"name": "a"}))
        silent = _Silent("/manifests/")
        registry.script(silent)
        with connect(own_service.host, autostart=False) as client:
            target = f"/images/create?fromImage={registry.authority}/app:1"
            service_socket = own_service.host.removeprefix("unix://")
            with socket.socket(socket.AF_UNIX) as leaving:
                leaving.connect(service_socket)
                leaving.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert silent.reached.wait(30)
            # The same pull by somebody else goes on as soon as the registry speaks.
            silent.over.set()
            assert client.pull(f"{registry.authority}/app:1")
