"""A failed container test's state: its containers' files and volumes, entered and gone on from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_sandbox import connect
from pytest_sandbox.post_mortem.settings import Bounds
from pytest_sandbox.post_mortem.shelf import Shelf
from tests.conftest import Service

pytestmark = pytest.mark.needs_userns

CONFTEST = """
    from pytest_sandbox import container, volume

    store = volume(files={"seed": "seed of the volume"})
    box = container("host", ["sleep", "1000"], volumes={"/data/store": "store"}, env={"WISH": "1"})
"""
TESTS = """
    import pytest

    SCRIPT = '''
        cat /data/store/* /opt/mine && exit
        mkdir -p /opt; echo layer > /opt/mine; echo volume > /data/store/more; exit 1
    '''

    def go_on(box):
        done = box.exec(["sh", "-c", SCRIPT])
        print(done.stdout.decode())
        assert done.exit_code == 0, "the first time"

    def test_plain(box):
        go_on(box)

    @pytest.mark.hermetic
    def test_hermetic(box):
        open("/tmp/loose", "w").close()
        go_on(box)
"""


def _sandboxctl(directory: Path, service: Service, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-c", "from pytest_sandbox.cli import main; main()", *words]
    done = subprocess.run(
        command,
        cwd=directory,
        env=service.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def test_containers_are_kept_entered_and_go_on(
    hermetic: pytest.Pytester, own_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SANDBOX_ROOT", "SANDBOX_HOST"):
        monkeypatch.setenv(name, own_service.environ[name])
    hermetic.makeconftest(CONFTEST)
    hermetic.makepyfile(test_it=TESTS)
    result = hermetic.runpytest_subprocess("-p", "no:warnings")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [f"sandboxctl shell test_it.py::{name}" for name in ("test_plain", "test_hermetic")]
    )
    here = hermetic.path

    look = "cat /data/store/* /opt/mine; echo $WISH; echo x > /data/store/more; exit 7"
    for name, options in (("test_plain", ()), ("test_hermetic", ("-c", "box"))):
        for _ in range(2):
            code, output = _sandboxctl(
                here, own_service, "shell", *options, name, "--", "sh", "-c", look
            )
            assert (code, output) == (7, "volume\nseed of the volumelayer\n1\n")
        code, output = _sandboxctl(here, own_service, "rerun", name, "--", "-s", "-W", "ignore")
        assert code == 0, output
        assert "seed of the volumelayer" in output
    ls = _sandboxctl(here, own_service, "shell", "test_hermetic", "--", "ls", "/tmp/loose")
    assert ls == (0, "/tmp/loose\n")
    code, output = _sandboxctl(here, own_service, "shell", "-c", "db", "test_plain", "true")
    assert code == 1
    assert "no container db: there are: box" in output

    with connect(own_service.host, autostart=False, lease=False) as client:
        assert not client.containers(all=True)
        assert not client.volumes()
        assert len(_kept_images(client)) == 2
        Shelf(own_service.root).trim(Bounds(1, 1 << 20))
        again = hermetic.runpytest_subprocess("-p", "no:warnings", "-k", "plain")
        again.assert_outcomes(failed=1, deselected=1)
        assert len(_kept_images(client)) == 2


def _kept_images(client: object) -> list[str]:
    return [
        tag
        for image in client.images()  # type: ignore[attr-defined]
        for tag in image.tags
        if tag.startswith("post-mortem:")
    ]
