"""What must survive a crash: blobs by digest, layers, sealed snapshots, metadata.

Every publish is write back, rename, write the directory back, commit; every removal is a rename
into `trash/`. Import from here.
"""

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
