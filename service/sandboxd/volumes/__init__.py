"""Volumes: directories that outlive a container, empty or copy-on-write over a snapshot."""

from sandboxd.volumes.hookspecs import Released, Request, Surroundings, VolumeDriver, hookimpl
from sandboxd.volumes.volume import Volume
from sandboxd.volumes.volumes import Volumes

__all__ = [
    "Released",
    "Request",
    "Surroundings",
    "Volume",
    "VolumeDriver",
    "Volumes",
    "hookimpl",
]
