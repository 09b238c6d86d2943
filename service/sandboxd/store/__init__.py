"""What must survive a crash: blobs by digest, layers, sealed snapshots, metadata.

Every publish is write back, rename, write the directory back, commit; every removal is a rename
into `trash/`. Import from here; the names are loaded when they are used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandboxd.store.blobs import Blob, Blobs
    from sandboxd.store.collection import Reclaimed
    from sandboxd.store.database import Database, Document, Documents
    from sandboxd.store.layers import Layers
    from sandboxd.store.snapshots import Snapshot, Snapshots, Tree
    from sandboxd.store.store import Store

__all__ = [
    "Blob",
    "Blobs",
    "Database",
    "Document",
    "Documents",
    "Layers",
    "Reclaimed",
    "Snapshot",
    "Snapshots",
    "Store",
    "Tree",
]

_MODULES = {
    "Blob": "blobs",
    "Blobs": "blobs",
    "Database": "database",
    "Document": "database",
    "Documents": "database",
    "Layers": "layers",
    "Reclaimed": "collection",
    "Snapshot": "snapshots",
    "Snapshots": "snapshots",
    "Store": "store",
    "Tree": "snapshots",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value
