"""The Docker Engine API, and the service's own routes under /sandbox/, over a unix socket.

`serve` is the way in. `routes` is the table of all that is answered; one module for each family of
routes; `hijack` holds what attach and exec need of a connection.
"""

from sandboxd.api.server import serve
from sandboxd.api.surface import Activity

__all__ = ["Activity", "serve"]
