"""The docker CLI: the service itself, and what happens in it."""

from __future__ import annotations

import json

import pytest

from .conftest import Docker

pytestmark = [pytest.mark.needs_userns, pytest.mark.needs_docker_cli, pytest.mark.needs_busybox]


class TestService:
    def test_version_shows_both_sides(self, docker: Docker) -> None:
        about = json.loads(docker.output("version", "--format", "{{json .Server}}"))
        assert about["ApiVersion"] == "1.45"
        assert about["Os"] == "linux"

    def test_info_succeeds(self, docker: Docker) -> None:
        about = json.loads(docker.output("info", "--format", "{{json .}}"))
        assert about["Swarm"]["LocalNodeState"] == "inactive"
        assert "ServerErrors" not in about or not about["ServerErrors"]

    def test_inspect_of_nothing_says_so(self, docker: Docker) -> None:
        done = docker("inspect", "no-such-thing")
        assert done.returncode == 1
        assert b"No such object: no-such-thing" in done.stderr

    def test_system_df_counts(self, docker: Docker, busybox: str) -> None:
        rows = docker.output("system", "df", "--format", "{{.Type}} {{.TotalCount}}")
        counts = dict(row.rsplit(" ", 1) for row in rows.splitlines())
        assert int(counts["Images"]) >= 2
        assert "VOLUME" in docker.output("system", "df", "-v")

    def test_networks_can_be_listed_but_not_made(self, docker: Docker) -> None:
        assert "bridge" in docker.output("network", "ls", "--format", "{{.Name}}").split()
        done = docker("network", "create", "n")
        assert done.returncode == 1
        assert b"networks cannot be created" in done.stderr


class TestEvents:
    def test_a_containers_life(self, docker: Docker, busybox: str, name: str) -> None:
        process = docker.popen(
            "events", "--filter", f"container={name}", "--format", "{{json .}}", "--since", "1s"
        )
        docker("run", "--rm", "--name", name, busybox, "sh", "-c", "exit 3")
        seen = []
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            seen.append(event["Action"])
            if event["Action"] == "die":
                assert event["Actor"]["Attributes"]["exitCode"] == "3"
                assert event["Actor"]["Attributes"]["name"] == name
            if event["Action"] == "destroy":
                break
        process.kill()
        process.communicate()
        assert [action for action in seen if action in ("create", "start", "die", "destroy")] == [
            "create", "start", "die", "destroy"
        ]  # fmt: skip

    def test_a_window_in_the_past_ends_by_itself(self, docker: Docker) -> None:
        docker.output("events", "--since", "10s", "--until", "1s")
