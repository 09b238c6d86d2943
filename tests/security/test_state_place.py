"""The state may lie anywhere: it stays hidden, and what is shown beside it is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_sandbox import connect

pytestmark = pytest.mark.needs_userns


@pytest.mark.parametrize("own_service", ["/tmp", "/var/tmp"], indirect=True)
def test_a_project_beside_the_state_is_shown_and_the_state_is_not(own_service: Any) -> None:
    project = own_service.root.parent / "project"
    project.mkdir()
    (project / "file").write_text("content")
    parent = Path(own_service.root.parent).parent
    script = (
        f"cat {project}/file && ! ls {own_service.root} && ! touch {project}/new"
        f" && touch {parent}/mine && ls {own_service.root.parent}"
    )
    with connect(own_service.host, autostart=False) as client:
        # With a sysctl the container takes a slot that has not assembled `host` ahead.
        for sysctls in ({}, {"net.ipv4.ip_unprivileged_port_start": "0"}):
            ran = client.run("host", ["sh", "-c", script], show=[project], sysctls=sysctls)
            assert (ran.exit_code, ran.stdout) == (0, b"contentproject\n"), ran.stderr
    assert not (parent / "mine").exists()
    assert not (project / "new").exists()
