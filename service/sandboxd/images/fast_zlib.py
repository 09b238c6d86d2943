"""zlib's interface, by ISA-L where there is a wheel of it (x86-64, ARM64), else by zlib itself."""

from __future__ import annotations

from typing import Any, Final

fast: Any
try:
    from isal import isal_zlib as fast
except ImportError:
    import zlib as fast

FAST_LEVEL: Final = 2
"""ISA-L at 2 packs as well as zlib at 4, ten times faster; a plain zlib is quick enough at 2."""
WITH_GZIP_HEADER: Final = 31
"""`wbits` for a gzip header without name and time."""


def gzip_compressor() -> Any:
    """An object with `compress` and `flush` that makes one gzip member."""
    return fast.compressobj(FAST_LEVEL, fast.DEFLATED, WITH_GZIP_HEADER)
