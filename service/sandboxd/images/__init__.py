"""Images: where they come from, what they are called, and what a container's root is made of.

The names are loaded when they are used: a pull's worker processes need the modules below only.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandboxd.images.image import Image
    from sandboxd.images.images import Images
    from sandboxd.images.reference import Reference
    from sandboxd.images.sources import Arrival, ImageSource, Workbench

__all__ = ["Arrival", "Image", "ImageSource", "Images", "Reference", "Workbench"]

_MODULES = {
    "Arrival": "sources",
    "Image": "image",
    "ImageSource": "sources",
    "Images": "images",
    "Reference": "reference",
    "Workbench": "sources",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value
