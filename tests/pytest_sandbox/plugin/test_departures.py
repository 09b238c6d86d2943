"""What a fixture made goes while the next test runs, in order, and is gone before it is missed."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.needs_userns


def test_a_container_is_on_its_way_out_after_its_test(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        import pytest
        from pytest_sandbox import NoSuchContainer, container, volume

        data = volume(files={"a": "b"})
        box = container(command=["sleep", "1000"], volumes={"/data": "data"})
        seen = []

        @pytest.mark.parametrize("number", range(3))
        def test_it(sandbox, box, data, number):
            seen.append((box.id, data.name))
            sandbox.departures.settle()
            for id, name in seen[:-1]:
                with pytest.raises(NoSuchContainer):
                    sandbox.get_container(id)
            assert [each.name for each in sandbox.volumes() if (box.id, each.name) in seen]
            gone = {name for _, name in seen[:-1]}
            assert not gone & {each.name for each in sandbox.volumes()}
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=3)


def test_more_departures_than_there_is_room_for(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        import pytest
        from pytest_sandbox import volume
        from pytest_sandbox.departures import MOST

        data = volume()

        @pytest.mark.parametrize("number", range(MOST * 3))
        def test_it(data, number):
            pass

        def test_all_are_gone(sandbox):
            sandbox.departures.settle()
            assert [each.name for each in sandbox.volumes()] == []
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=49)


def test_what_a_test_has_removed_itself_is_no_error(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        from pytest_sandbox import container, volume

        data = volume()
        box = container(command=["sleep", "1000"])

        def test_it(box, data):
            box.remove()
            data.remove()
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=1)


def test_a_client_in_the_place_of_ours_waits_for_removals(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        import pytest
        from pytest_sandbox import NoSuchContainer, connect, container

        @pytest.fixture(scope="session")
        def sandbox():
            with connect() as client:
                yield client

        box = container(command=["sleep", "1000"])

        def test_one(box):
            test_one.id = box.id

        def test_two(sandbox):
            with pytest.raises(NoSuchContainer):
                sandbox.get_container(test_one.id)
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=2)


def test_a_forked_process_sends_its_own(live: pytest.Pytester) -> None:
    live.makepyfile(
        """
        import os
        import pytest
        from pytest_sandbox import NoSuchContainer, container

        box = container(command=["sleep", "1000"])

        def test_before(box):
            pass

        @pytest.mark.filterwarnings("ignore::DeprecationWarning")
        def test_fork(sandbox):
            made = sandbox.container("host", ["true"])
            if (pid := os.fork()) == 0:
                sandbox.departures.container(made.id)
                sandbox.departures.settle()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            with pytest.raises(NoSuchContainer):
                made.inspect()

        def test_after(box):
            assert box.status == "running"
        """
    )
    live.runpytest_subprocess().assert_outcomes(passed=3)
