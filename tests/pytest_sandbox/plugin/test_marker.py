"""The marker `sandbox(…)`: the closest wins, and bad arguments fail the collection."""

from __future__ import annotations

import pytest

from pytest_sandbox.marker import Marked, marked


def test_the_closest_marker_wins_and_environments_add_up(inner: pytest.Pytester) -> None:
    item = inner.getitem(
        """
        import pytest

        pytestmark = pytest.mark.sandbox(env={"A": "module", "B": "module"}, image="m", timeout=1)

        class TestClass:
            @pytest.mark.sandbox(env={"A": "test"}, image="t", log_lines=0)
            def test_it(self):
                pass
        """,
        "test_it",
    )
    assert marked(item) == Marked({"A": "test", "B": "module"}, "t", timeout=1, log_lines=0)
    assert item.parent is not None
    assert marked(item.parent) == Marked({"A": "module", "B": "module"}, "m", timeout=1)


def test_a_marker_without_arguments_says_nothing(inner: pytest.Pytester) -> None:
    item = inner.getitem("import pytest\n@pytest.mark.sandbox\ndef test_it(): pass", "test_it")
    assert marked(item) == Marked()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("'postgres'", "it takes keyword arguments only, not ('postgres',)"),
        ("imgae='x'", "no argument 'imgae'; there are env, image, container_image, postgres"),
        ("env=['A=b']", "env=['A=b'] is not a mapping of strings to strings"),
        ("env={'A': 1}", "env={'A': 1} is not a mapping of strings to strings"),
        ("env={'A=B': ''}", "env={'A=B': ''} is not a mapping of strings to strings"),
        ("image=''", "image='' is not the name of an image"),
        ("container_image=1", "container_image=1 is not the name of an image"),
        ("postgres=17", "postgres=17 is not a version, such as"),
        ("postgres=[]", "postgres=[] is not a version, such as"),
        ("postgres=['17', '17']", "postgres=['17', '17'] is not a version, such as"),
        ("postgres=['new']", "postgres=['new'] is not a version, such as"),
        ("timeout=0", "timeout=0 is not a number above 0"),
        ("timeout=True", "timeout=True is not a number above 0"),
        ("log_lines=-1", "log_lines=-1 is not a whole number from 0 up"),
    ],
)
def test_bad_arguments_fail_the_collection_with_file_and_line(
    inner: pytest.Pytester, arguments: str, complaint: str
) -> None:
    path = inner.makepyfile(
        f"""
        import pytest

        def test_fine():
            pass

        class TestClass:
            @pytest.mark.sandbox({arguments})
            def test_it(self):
                pass
        """
    )
    result = inner.runpytest_subprocess("--strict-markers")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(errors=1)
    assert f"{path}:7: marker sandbox: {complaint}" in result.stdout.str()
