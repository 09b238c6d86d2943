"""What is alive: containers, execs, logs, events, leases, recipes. Import from here."""

from sandboxd.engine.attachments import Attachment
from sandboxd.engine.container import Container
from sandboxd.engine.engine import Engine
from sandboxd.engine.events import Events
from sandboxd.engine.execs import Exec
from sandboxd.engine.filters import Filters
from sandboxd.engine.leases import Lease
from sandboxd.engine.runner import RunResult
from sandboxd.engine.states import State

__all__ = [
    "Attachment",
    "Container",
    "Engine",
    "Events",
    "Exec",
    "Filters",
    "Lease",
    "RunResult",
    "State",
]
