"""Python interpreters of this machine as images on `host`, with requirements as layers.

The interpreter's image holds what `host` does not show anyway, at the place where it lies here: an
interpreter knows its own path in more ways than can be changed. Requirements are a virtual
environment at `/opt/python/env` above it. See docs/decisions/0012-python-images.md.
"""

from __future__ import annotations

from pytest_sandbox.python_images.images import PythonImage, python_image
from pytest_sandbox.python_images.requirements import read_requirements

__all__ = ["PythonImage", "python_image", "read_requirements"]
