"""A web server on a volume that is filled before the test.

Both come from factories: what they are assigned to is a fixture. The image is `host`, this
machine's own root, read-only; its containers have no network but their own loopback, so port 8000
is free in each of them, and the test asks from inside.
"""

import sys

from pytest_sandbox import Container, container, volume

site = volume(
    files={"index.html": "<h1>It works</h1>"},
    # Commands run in the volume's directory, once: the result is kept as a snapshot.
    commands=[["sh", "-c", "seq 1 100000 > numbers.txt"]],
)

web = container(
    command=[sys.executable, "-m", "http.server", "8000", "--directory", "/site"],
    volumes={"/site": "site"},  # the volume fixture, by its name
    ready=8000,  # the test starts when something listens there
)

GET = "import sys, urllib.request as r; sys.stdout.buffer.write(r.urlopen(sys.argv[1]).read())"


def get(web: Container, path: str) -> bytes:
    """Ask the server from inside its container."""
    answer = web.exec([sys.executable, "-c", GET, f"http://localhost:8000/{path}"])
    assert answer.exit_code == 0, answer.stderr.decode()
    return answer.stdout


def test_the_page_is_served(web: Container) -> None:
    assert get(web, "index.html") == b"<h1>It works</h1>"


def test_a_change_stays_in_its_test(web: Container) -> None:
    web.exec(["rm", "/site/index.html"])
    assert b"numbers.txt" in get(web, "")  # a listing now: the page is gone


def test_the_next_test_does_not_notice(web: Container) -> None:
    assert get(web, "") == b"<h1>It works</h1>"
    assert get(web, "numbers.txt").endswith(b"100000\n")
