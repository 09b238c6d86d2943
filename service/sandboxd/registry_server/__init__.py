"""A registry over the service's store: the OCI distribution API 1.1, for a team or a CI fleet.

It serves what was pushed to it and, by their names, the local images of the same store. What is
pushed does not become a local image: a pull does that. The process runs beside the service, in an
outer user namespace of its own. Import from here.
"""

from sandboxd.registry_server.access import Access
from sandboxd.registry_server.server import Settings, serve

__all__ = ["Access", "Settings", "serve"]
