"""What an environment is, and what its commands see and leave behind."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pytest_sandbox
import sandboxd

if TYPE_CHECKING:
    from tests.pytest_sandbox.tox.conftest import Project

pytestmark = [
    pytest.mark.needs_userns,
    pytest.mark.needs_tox,
    pytest.mark.needs_system_python,
]

PYTHON = ["python", "-c"]


def test_commands_run_in_one_container_over_layers_that_environments_share(
    project: Project, tmp_path: object
) -> None:
    script = (
        "import os, sys; print('prefix', sys.prefix, os.getcwd()); open('left', 'w').write('x')"
    )
    project.configure(
        base={
            "commands": [
                ["alpha"],
                [*PYTHON, script],
                [*PYTHON, "print('read', open('left').read())"],
                [*PYTHON, "open(r'{env_dir}/report', 'w').write('{env_name}')"],
                [*PYTHON, "open(r'{env_tmp_dir}/t', 'w'); open(r'{work_dir}/all', 'a').write('.')"],
            ]
        },
        a={},
        b={},
    )
    before = project.layers()
    first = project.tox()
    made = project.layers() - before
    assert first.count("prefix /opt/python/env " + str(project.path)) == 2
    assert first.count("read x") == 2
    assert "alpha /opt/python/env/lib/python3" in first
    assert len(made) <= 2  # the environment, perhaps another test's; and alpha with beta
    assert sorted(each.name for each in project.path.iterdir()) == [".tox", "src", "tox.toml"]
    assert (project.path / ".tox/b/report").read_text() == "b"
    assert (project.path / ".tox/b/tmp/t").exists()
    assert (project.path / ".tox/all").read_text() == ".."
    assert not (project.path / ".tox/a/bin").exists()
    again = project.tox()
    assert again.count("read x") == 2
    assert project.layers() == before | made


def test_only_a_command_that_may_use_the_network_does(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        script = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        project.configure(
            base={"commands": [[*PYTHON, script]]},
            alone={"ignore_outcome": True},
            joined={"sandbox_network": True},
        )
        said = project.tox()
    assert "ConnectionRefusedError" in said
    assert "alone: IGNORED FAIL" in said
    assert "joined: OK" in said


def test_the_settings_of_tox(project: Project) -> None:
    (project.path / "sub").mkdir()
    show = (
        "import os; print('saw', sorted(os.environ.get(n, '-') for n in ('PASSED', 'KEPT', 'SET')),"
        " os.path.basename(os.getcwd()), os.environ['HOME'], os.path.isdir(os.environ['HOME']))"
    )
    told = "import os; print('told', os.environ['SANDBOX_POSTGRES'], os.environ['SANDBOX_FACTORS'])"
    (project.path / "greet.sh").write_text("#!/bin/sh\necho greeting $1\n")
    (project.path / "greet.sh").chmod(0o755)
    volume = project.path.parent / "data"
    volume.mkdir()
    (volume / "file").write_text("content")
    project.configure(
        base={"pass_env": ["PASSED"], "set_env": {"SET": "by set_env"}},
        a={"commands": [["{env_python}", "-c", show]], "change_dir": "sub"},
        b={"commands": [["sh", "-c", "exit 0"]]},
        c={
            "allowlist_externals": ["sh", "{tox_root}/greet.sh"],
            "commands": [["sh", "-c", "echo from sh"], ["{tox_root}/greet.sh", "{posargs:no}"]],
        },
        d={"commands": [["-", "python", "-c", "raise SystemExit(2)"], [*PYTHON, "exit(3)"]]},
        **{"e-pg17": {"commands": [[*PYTHON, told]]}},
        f={"commands": [["nosuchprogram"]]},
        g={
            "commands": [[*PYTHON, "print('volume', open('/data/file').read())"]],
            "sandbox_volumes": [f"{volume}:/data:ro"],
        },
        h={"commands": [[*PYTHON, "pass"]], "sandbox_services": ["postgres"]},
    )
    said = project.tox("run", "--", "posarg", code=1, PASSED="by pass_env", KEPT="out")
    home = project.environ["HOME"]
    assert f"saw ['-', 'by pass_env', 'by set_env'] sub {home} True" in said
    assert "sh is not allowed, use allowlist_externals to allow it" in said
    assert "from sh" in said
    assert "greeting posarg" in said
    assert "d: FAIL code 3" in said
    assert "told 17 e,pg17" in said
    assert "volume content" in said
    assert "write it as NAME:VERSION" in said
    results = {
        line.split(":")[0].strip(): line for line in said.splitlines()[-10:] if "code" in line
    }
    assert sorted(results) == ["b", "d", "f", "h"]


def test_tests_of_an_environment_with_services_start_containers_of_their_own(
    project: Project,
) -> None:
    script = (
        "from pytest_sandbox import connect\n"
        "with connect(autostart=False) as c:\n"
        "    print('inner', c.run('host', ['/opt/python/env/bin/alpha']).stdout)\n"
    )
    places = {Path(each.__file__ or "").parents[1] for each in (pytest_sandbox, sandboxd)}
    project.configure(
        **{
            "a-pg17": {
                "commands": [[*PYTHON, script]],
                "set_env": {"PYTHONPATH": ":".join(map(str, places))},
                "sandbox_volumes": [f"{place}:{place}:ro" for place in places],
            }
        }
    )
    assert "inner b'alpha /opt/python/env" in project.tox()


def test_notest_recreate_and_the_journal(project: Project) -> None:
    project.configure(a={"commands": [["alpha"]]})
    assert "commands[0]" not in project.tox("run", "--notest")
    project.tox("run", "--recreate", "--result-json", "result.json")
    result = json.loads((project.path / "result.json").read_text())["testenvs"]["a"]
    assert {"alpha==1.0", "beta==1.0"} <= set(result["installed_packages"])
    assert result["test"][0]["command"] == ["/opt/python/env/bin/alpha"]
    assert result["result"]["success"] is True
    assert "told" in project.tox("exec", "-e", "a", "--", "python", "-c", "print('told')")
    project.tox("exec", "-e", "a", "--", "python", "-c", "exit(7)", code=7)


def test_a_tox_that_is_provisioned_is_an_ordinary_environment(project: Project) -> None:
    project.configure(a={"commands": [["alpha"]]})
    text = (project.path / "tox.toml").read_text()
    (project.path / "tox.toml").write_text('requires = ["tox>=99"]\n' + text)
    said = project.tox("run", "-e", "a")
    assert "provisioned .tox run -e a" in said
    assert (project.path / ".tox/.tox/bin/python").exists()
