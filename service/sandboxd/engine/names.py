"""Names and ids of containers: Docker's grammar, and random names for those who choose none."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Container

from sandboxd.errors import BadRequest

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")

_MANNERS = """
able agile amber awake bold brave bright brisk calm candid clear clever cosy crisp curious
daring deft eager earnest easy exact fair fond frank free fresh gentle glad golden grand
happy hardy honest humble jolly jovial keen kind lively loyal lucid mellow merry mild modest
neat nimble noble patient placid polite proud quick quiet rapid ready robust serene sharp
sincere sleek smart snappy solid sound spry steady stoic strong sunny sure swift tender tidy
tranquil true upbeat vivid warm wise witty zealous zen
""".split()

_PEOPLE = """
abel agnesi ampere archimedes babbage bell bernoulli bohr boole born bose cantor carson
cauchy cerf chandra church clarke copernicus curie darwin dijkstra dirac easley edison
einstein engelbart euclid euler faraday fermat fermi feynman floyd fourier franklin galileo
galois gauss germain goedel goodall hamilton hawking heisenberg hertz hilbert hodgkin hopper
hypatia jackson jacobi johnson joule kalman kare kepler khayyam knuth kovalevskaya lagrange
lamarr lamport laplace leavitt leibniz lovelace maxwell mccarthy meitner mendel mirzakhani
morse newton nobel noether noyce pascal pasteur pauling perlman planck poincare ptolemy
raman ramanujan ride ritchie rosalind rubin sagan shannon sinoussi tesla thompson torvalds
turing tu volta wiles wilson wozniak wu yalow
""".split()


def new_id() -> str:
    """64 random hexadecimal digits."""
    return os.urandom(32).hex()


def random_name(taken: Container[str] = ()) -> str:
    """A name such as `brave_noether` that is not in the container `taken`."""
    for attempt in range(1000):
        name = f"{random.choice(_MANNERS)}_{random.choice(_PEOPLE)}"
        name = name if attempt < 8 else f"{name}{attempt}"
        if name not in taken:
            return name
    return new_id()[:12]


def checked_name(name: str) -> str:
    """The name without its leading slash. Raises BadRequest for what Docker's grammar refuses."""
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    return name.removeprefix("/")
