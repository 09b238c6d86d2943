"""How the plugin fails: with what went wrong and what mends it, not with its own traceback.

What this machine cannot run is skipped if the user asked for that, and an error otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pytest_sandbox.options import options_of


@contextmanager
def explained(config: pytest.Config) -> Iterator[None]:
    """End the fixture by a short failure, or a skip, for an error of the service's tree."""
    from pytest_sandbox import errors

    unavailable = (errors.Unavailable, errors.HostLacks, errors.NoSuchImage)
    try:
        yield
    except errors.SandboxError as error:
        if options_of(config).skip_unavailable and isinstance(error, unavailable):
            raise pytest.skip.Exception(str(error)) from None
        raise pytest.fail.Exception(str(error), pytrace=False) from None
