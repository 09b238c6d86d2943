"""Frameworks that bring tests of their own kind: unittest, doctest, asyncio, anyio, hypothesis."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.pytest_sandbox.hermetic.compat.inner_runs import Project

pytestmark = pytest.mark.needs_userns

UNITTEST = """
    import unittest

    def setUpModule():
        global state
        state = ["module"]

    class TestLife(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            cls.shared = [*state, "class"]

        def setUp(self):
            self.own = [*self.shared, "test"]
            self.addCleanup(print, "cleaned up")

        def test_state(self):
            self.assertEqual(self.own, ["module", "class", "test"])

        def test_fails(self):
            self.fail("on purpose")

        @unittest.skip("said so")
        def test_skipped(self):
            pass

        @unittest.expectedFailure
        def test_expected(self):
            self.fail("as expected")

        @unittest.expectedFailure
        def test_unexpected(self):
            pass

        def tearDown(self):
            print("torn down")

    class TestBrokenSetUp(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            raise RuntimeError("no class")

        def test_never(self):
            pass

    class TestAsync(unittest.IsolatedAsyncioTestCase):
        async def asyncSetUp(self):
            self.value = 3

        async def test_awaits(self):
            self.assertEqual(self.value, 3)
"""

DOCUMENTED = '''
    """A module with examples.

    >>> add(1, 2)
    3
    """

    def add(a, b):
        """
        >>> add(1, 1)
        3
        """
        return a + b
'''

TEXT = """
    A text file.

    >>> 1 + 1
    2
    >>> import os; os.path.basename("/a/b")
    'c'
"""

ASYNCIO = """
    import asyncio
    import pytest, pytest_asyncio

    @pytest_asyncio.fixture(loop_scope="module", scope="module")
    async def server():
        async def echo(reader, writer):
            writer.write(await reader.readline())
            writer.close()
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            yield server.sockets[0].getsockname()

    async def ask(address, text):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(text)
        answer = await reader.readline()
        writer.close()
        return answer

    @pytest.mark.asyncio(loop_scope="module")
    async def test_first(server):
        assert await ask(server, b"one\\n") == b"one\\n"

    @pytest.mark.asyncio(loop_scope="module")
    async def test_second(server):
        assert await ask(server, b"two\\n") == b"two\\n"

    @pytest.mark.asyncio
    async def test_loop_of_its_own():
        process = await asyncio.create_subprocess_exec("true")
        assert await process.wait() == 0

    @pytest.mark.asyncio
    async def test_fails():
        await asyncio.sleep(0)
        assert not "on purpose"
"""

ANYIO = """
    import anyio
    import pytest

    @pytest.fixture(scope="module")
    def anyio_backend():
        return "asyncio"

    @pytest.fixture(scope="module")
    async def value(anyio_backend):
        yield [1]

    @pytest.mark.anyio
    async def test_group(value):
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0)
        assert value == [1]

    @pytest.mark.anyio
    async def test_fails(value):
        assert value == [2]
"""

HYPOTHESIS = """
    import pytest

    def test_imports_it_late():
        from hypothesis import given, strategies

        @given(strategies.integers())
        def small(number):
            assert number < 1000

        small()

    def test_imports_something_that_warns():
        import imported_late
"""


def test_unittest(project: Project) -> None:
    project.write(test_old=UNITTEST)
    run = project.same("-rA")
    assert run.summary == "2 failed, 2 passed, 1 skipped, 1 xfailed, 1 error in Ns"


def test_doctest(project: Project) -> None:
    project.write(documented=DOCUMENTED, **{"text.txt": TEXT})
    run = project.same("--doctest-modules", "--doctest-glob=*.txt", "-v")
    assert run.summary == "2 failed, 1 passed in Ns"


def test_asyncio(project: Project) -> None:
    """A loop runs in one process: one that a module shares needs a sandbox for the module."""
    project.write(test_loops=ASYNCIO)
    project.ini("asyncio_default_fixture_loop_scope = function")
    run = project.same("+asyncio", "-rA", scopes=("--hermetic",))
    project.same("+asyncio", "-rA", "-k", "own or fails", scopes=("--hermetic=function",))
    assert run.summary == "1 failed, 3 passed in Ns"


def test_anyio(project: Project) -> None:
    project.write(test_groups=ANYIO)
    run = project.same("+anyio", "-rA")
    assert run.summary == "1 failed, 1 passed in Ns"


def test_hypothesis_that_only_children_import(project: Project) -> None:
    """Its terminal summary imports it in the parent, whatever warns then."""
    project.write(
        test_late=HYPOTHESIS,
        imported_late="import warnings; warnings.warn('at import', DeprecationWarning)",
    )
    project.ini("filterwarnings =", "    error", "    ignore:at import:DeprecationWarning")
    plain, run = project.run("+hypothesis"), project.run("+hypothesis", "--hermetic=function")
    assert "number=1000" in run.failure("test_imports_it_late")
    assert run.summary == plain.summary == "1 failed, 1 passed in Ns"
    assert run.ret == plain.ret


def test_the_examples_database_of_hypothesis_persists(project: Project) -> None:
    project.environ.pop("CI", None)  # there hypothesis keeps none
    project.write(test_early=f"import hypothesis\n{dedent(HYPOTHESIS)}")
    project.run("+hypothesis", "-k", "imports_it_late", "--hermetic")
    found = [path for path in (project.path / ".hypothesis").rglob("*") if path.is_file()]
    assert any("examples" in path.parts for path in found)
