"""Removing what has stopped: `docker container prune`."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Final

from sandboxd.engine.filters import Filters, matches_labels
from sandboxd.engine.lifecycle import Lifecycle
from sandboxd.engine.registry import Registry
from sandboxd.errors import BadRequest, Conflict

_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(h|m(?!s)|s|ms)")
_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


async def prune(registry: Registry, lifecycle: Lifecycle, filters: Filters) -> list[str]:
    """Remove every container that does not run and passes the filters; their ids.

    `until` is a Unix time, an RFC 3339 time, or a duration such as `24h` before now.
    """
    limits = [moment(text) for text in filters.get("until", ())]
    removed = []
    for container in registry:
        made = container.created / 1e9
        wanted = matches_labels(container.settings.labels, filters)
        if container.running or not wanted or any(made > limit for limit in limits):
            continue
        try:
            await lifecycle.remove(container)
        except Conflict:
            # Started or removed by someone else meanwhile.
            continue
        removed.append(container.id)
    return removed


def moment(text: str) -> float:
    """Unix seconds. Raises BadRequest."""
    try:
        return float(text)
    except ValueError:
        pass
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return time.time() - sum(float(number) * _SECONDS[unit] for number, unit in parts)
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise BadRequest(f"invalid filter 'until={text}'") from None
