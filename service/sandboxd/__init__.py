"""The local sandbox service: images, containers, volumes and snapshots without Docker or root."""

__version__ = "0.1.0"
