"""PostgreSQL's programs from an image, found by the image's own shell."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox import connect
from sandbox_fixtures.postgresql.binaries import PROGRAMS, _installed, _wheel

if TYPE_CHECKING:
    from tests.conftest import Service

pytestmark = [
    pytest.mark.needs_userns,
    pytest.mark.needs_subids,
    pytest.mark.needs_busybox,
    pytest.mark.needs_postgres,
]

IMAGE = "postgres-image:1"
PASSWD = b"root:x:0:0:root:/root:/bin/sh\npostgres:x:70:70::/tmp:/bin/sh\n"


def programs() -> Path:
    """The directory of the machine's own, the wheel's first."""
    candidates = (*_wheel(), *_installed(Path("/")))
    return next(path for path in candidates if (path / "postgres").is_file())


def libraries(directory: Path) -> list[str]:
    """What the dynamic linker loads for them."""
    paths = [str(directory / program) for program in PROGRAMS]
    listing = subprocess.run(["ldd", *paths], capture_output=True, text=True, check=True).stdout
    return sorted(set(re.findall(r"(/\S+) \(0x", listing)))


@pytest.fixture(scope="module")
def image(service: Service, busybox_tar: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """busybox with PostgreSQL where the machine has it, and an entrypoint that must not run."""
    directory, path = programs(), tmp_path_factory.mktemp("image") / "postgres.tar"
    share = Path("/usr/share/postgresql")
    with tarfile.open(busybox_tar) as source, tarfile.open(path, "w") as tar:
        for member in source:
            content = PASSWD if member.name == "etc/passwd" else None
            if content is not None:
                member.size = len(content)
            elif member.isreg():
                content = source.extractfile(member).read()  # type: ignore[union-attr]
            tar.addfile(member, BytesIO(content) if content is not None else None)
        tar.add(directory.parent, _inside(directory.parent))
        for library in libraries(directory):
            tar.add(os.path.realpath(library), os.path.normpath(library).lstrip("/"))
        if share.is_dir() and directory.is_relative_to("/usr"):
            tar.add(share, _inside(share))
    changes = [f"ENV PATH={directory}:/bin", 'ENTRYPOINT ["/bin/false"]']
    with connect(service.host, autostart=False) as client:
        client.image_import(path, IMAGE, changes=changes)
    return IMAGE


def _inside(path: Path) -> str:
    return str(path).lstrip("/")


def test_the_programs_of_an_image(live: pytest.Pytester, image: str) -> None:
    live.makepyfile(
        f"""
        from sandbox_fixtures import postgres

        pg = postgres(load=["create table a as select 1 as b"], image={image!r})

        def test_it(pg):
            assert pg.psql("select b from a") == "1"
            assert pg.container.exec(["id", "-un"]).stdout == b"postgres\\n"
            assert pg.container.inspect()["Config"]["Image"] == {image!r}
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=1)


def test_an_image_without_them(live: pytest.Pytester, busybox: str) -> None:
    live.makepyfile(
        f"""
        from sandbox_fixtures import postgres

        pg = postgres(image={busybox!r})

        def test_it(pg):
            pass
        """
    )
    result = live.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"no PostgreSQL programs: the image {busybox} has no initdb*"])
