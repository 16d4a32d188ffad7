"""Being without a privilege for a while, as what runs in containers is."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

_libc = ctypes.CDLL(None)
_VERSION = 0x20080522
_SYS_RESOURCE = 1 << 24


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


@contextlib.contextmanager
def bound_by_quotas() -> Iterator[None]:
    """Have this thread be without CAP_SYS_RESOURCE, which takes one past the quotas of ext4."""
    header, sets = _Header(_VERSION, 0), (_Sets * 2)()
    assert _libc.capget(ctypes.byref(header), sets) == 0
    before = sets[0].effective
    sets[0].effective = before & ~_SYS_RESOURCE
    assert _libc.capset(ctypes.byref(header), sets) == 0
    try:
        yield
    finally:
        sets[0].effective = before
        assert _libc.capset(ctypes.byref(header), sets) == 0
