"""Images: where they come from, what they are called, and what a container's root is made of."""

from sandboxd.images.image import Image
from sandboxd.images.images import Images
from sandboxd.images.reference import Reference
from sandboxd.images.sources import Arrival, ImageSource, Workbench

__all__ = ["Arrival", "Image", "ImageSource", "Images", "Reference", "Workbench"]
