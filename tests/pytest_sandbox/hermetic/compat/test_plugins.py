"""Plugins that wrap a test's protocol, shuffle tests, or bring a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.pytest_sandbox.hermetic.compat.inner_runs import Project

pytestmark = pytest.mark.needs_userns

FLAKY = """
    import pytest

    tries = []

    def test_passes_the_third_time():
        tries.append(1)
        print(f"try {len(tries)}")
        assert len(tries) == 3

    def test_never_passes():
        assert 0

    @pytest.mark.flaky(reruns=1)
    def test_marked():
        assert 0

    def test_passes():
        pass
"""

DIES_ONCE = """
    import os, signal

    def test_dies():
        os.kill(os.getpid(), signal.SIGKILL)

    def test_passes():
        pass
"""

SLOW = """
    import threading
    import pytest

    def test_passes():
        pass

    @pytest.mark.timeout(0.3)
    def test_hangs():
        print("before it hung")
        threading.Event().wait()

    def test_after():
        pass
"""

DEAF = """
    import signal
    import pytest

    @pytest.mark.timeout(0.3)
    def test_hears_no_alarm():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        print("before it hung", flush=True)
        while True:
            signal.sigwait([signal.SIGUSR2])

    def test_after():
        pass
"""

SHUFFLED = """
    import random
    import pytest

    @pytest.mark.parametrize("number", range(8))
    def test_order(number):
        print(f"random {random.random()}")

    class TestMore:
        def test_1(self): print(random.random())
        def test_2(self): print(random.random())
"""


@pytest.mark.needs_rerunfailures
def test_rerunfailures(project: Project) -> None:
    project.write(test_flaky=FLAKY)
    run = project.same("+rerunfailures", "--reruns=2", "-rA")
    assert run.summary == "2 failed, 2 passed, 5 rerun in Ns"


@pytest.mark.needs_rerunfailures
def test_a_test_that_dies_is_not_tried_for_ever(project: Project) -> None:
    project.write(test_dies=DIES_ONCE)
    run = project.run("+rerunfailures", "--reruns=1", "--hermetic=function")
    assert run.summary == "1 passed, 1 error in Ns"
    assert "SIGKILL" in run.failure("test_dies.py::test_dies")


@pytest.mark.parametrize("scope", ["--hermetic", "--hermetic=function"])
@pytest.mark.parametrize("method", ["signal", "thread"])
def test_timeout(project: Project, scope: str, method: str) -> None:
    """Its thread method ends the process, which here is the test's own."""
    project.write(test_slow=SLOW)
    run = project.run("+timeout", f"--timeout-method={method}", "-v", scope)
    assert run.summary == "1 failed, 2 passed in Ns"
    assert "before it hung" in run.text
    assert "Timeout" in run.text + run.errors
    assert run.ret == pytest.ExitCode.TESTS_FAILED


def test_a_test_that_its_own_timeout_does_not_reach_is_killed(project: Project) -> None:
    project.write(test_deaf=DEAF)
    run = project.run("+timeout", "--hermetic=function")
    assert run.summary == "1 failed, 1 passed in Ns"
    assert "before it hung" in run.failure("test_hears_no_alarm")
    assert "timeout" in run.failure("test_hears_no_alarm").lower()


@pytest.mark.needs_pip_index
def test_randomly(project: Project, plugins_apart: Path) -> None:
    """Same order and same numbers for one seed."""
    project.environ["PYTHONPATH"] = str(plugins_apart)
    project.write(test_a=SHUFFLED, test_b=SHUFFLED)
    run = project.same("+randomly", "--randomly-seed=7", "-rA")
    assert run.ret == 0
    order = [name for name, when, _ in run.outcomes("test_a") if when == "call"]
    assert order != sorted(order)


DJANGO_SETTINGS = """
    SECRET_KEY = "of a test"
    INSTALLED_APPS = ["shop"]
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.sqlite3"}}
    ROOT_URLCONF = "shop.urls"
    ALLOWED_HOSTS = ["*"]
    DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
    USE_TZ = True
"""

DJANGO_APP = {
    "shop/__init__.py": "",
    "shop/models.py": """
        from django.db import models

        class Product(models.Model):
            name = models.CharField(max_length=20)
    """,
    "shop/urls.py": """
        from django.http import JsonResponse
        from django.urls import path
        from shop.models import Product

        def listed(request):
            return JsonResponse([p.name for p in Product.objects.order_by("name")], safe=False)

        urlpatterns = [path("", listed)]
    """,
}

DJANGO_TESTS = """
    import pytest
    from django.test import TestCase
    from shop.models import Product

    @pytest.mark.django_db
    def test_first(client):
        Product.objects.create(name="tea")
        assert client.get("/").json() == ["tea"]

    @pytest.mark.django_db
    def test_second(client):
        assert client.get("/").json() == []

    @pytest.mark.django_db(transaction=True)
    def test_committed():
        Product.objects.create(name="milk")

    def test_not_allowed():
        Product.objects.count()

    class TestOld(TestCase):
        @classmethod
        def setUpTestData(cls):
            cls.product = Product.objects.create(name="salt")

        def test_has_it(self):
            self.assertEqual(Product.objects.get().name, "salt")

        def test_assertions(self):
            with self.assertNumQueries(1):
                list(Product.objects.all())
"""


@pytest.mark.needs_pip_index
def test_django(project: Project, plugins_apart: Path) -> None:
    """Its TestCase opens the database for a class: that needs a sandbox for the class or module."""
    project.environ["PYTHONPATH"] = str(plugins_apart)
    project.write(test_shop=DJANGO_TESTS, settings=DJANGO_SETTINGS, **DJANGO_APP)
    project.ini("DJANGO_SETTINGS_MODULE = settings", "pythonpath = .")
    run = project.same("+django", "-rA", scopes=("--hermetic",))
    project.same("+django", "-rA", "-k", "not TestOld", scopes=("--hermetic=function",))
    assert run.summary == "1 failed, 5 passed in Ns"
