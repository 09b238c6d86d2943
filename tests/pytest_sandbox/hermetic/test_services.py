"""The test joins its services: localhost is right in every test, under any number of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Service

pytestmark = pytest.mark.needs_userns

SERVES = '''
import pathlib, socket, sys
import pytest
from pytest_sandbox import container

SAYS = """
import socket, sys
for listener in [socket.create_server(("localhost", int(sys.argv[1])))]:
    while True:
        connection, _ = listener.accept()
        connection.sendall(sys.argv[2].encode())
        connection.close()
"""

def saying(word, port=5432, **more):
    return container(command=[sys.executable, "-c", SAYS, str(port), word], ready=port, **more)

def heard(port=5432):
    with socket.create_connection(("localhost", port), 5) as connection:
        return connection.recv(100).decode()

of_test = saying("test")
of_module = saying("module", scope="module")
of_run = saying("run", 6000, scope="session")
of_run_too = saying("too", 6001, scope="session")

@pytest.mark.parametrize("number", range(3))
def test_its_own(of_test, number):
    assert heard() == "test"

def test_what_it_makes_itself(sandbox):
    with pytest.raises(OSError):
        heard()
    with sandbox.container("host", [sys.executable, "-c", SAYS, "5432", "itself"]) as made:
        made.start()
        made.ready(tcp=5432)
        assert heard() == "itself"

def test_those_of_the_run(of_run, of_run_too):
    assert heard(6000) + heard(6001) == "runtoo"

def test_wider_and_narrower(of_run, of_test):
    assert heard(6000) + heard() == "runtest"

def test_nobody_elses():
    for port in (5432, 6000):
        with pytest.raises(OSError):
            heard(port)
'''

POSTGRES = """
import pytest

psycopg = pytest.importorskip("psycopg")

@pytest.mark.parametrize("number", range(2))
def test_both_ways(postgres, number):
    for url in ("postgresql://postgres@localhost:5432/postgres", postgres.url):
        with psycopg.connect(url) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
"""


@pytest.fixture
def live(
    hermetic: pytest.Pytester, service: Service, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    monkeypatch.setenv("SANDBOX_HOST", service.host)
    return hermetic


def test_a_test_meets_its_services_on_localhost(live: pytest.Pytester) -> None:
    live.makepyfile(SERVES)
    live.runpytest_subprocess("--hermetic=function", "--tb=short").assert_outcomes(passed=7)


@pytest.mark.needs_xdist
@pytest.mark.needs_postgres
@pytest.mark.needs_psycopg
def test_under_workers_all_use_the_same_ports_at_once(live: pytest.Pytester) -> None:
    live.makepyfile(test_one=SERVES, test_two=SERVES, test_three=POSTGRES)
    result = live.runpytest_subprocess("-p", "no:rerunfailures", "-n2", "--hermetic=function")
    result.assert_outcomes(passed=16)


def test_a_module_has_one_network(live: pytest.Pytester) -> None:
    live.makepyfile(SERVES + "def test_module(of_module):\n    assert heard() == 'module'\n")
    result = live.runpytest_subprocess("--hermetic", "-k", "its_own or test_module or itself")
    result.assert_outcomes(passed=5)
    assert result.parseoutcomes()["deselected"] == 3
