"""Noticing that somebody else changed nftables: a flush, a firewall's reload.

The kernel tells of every transaction; nothing is asked for and nothing polled. A transaction names
the thread that made it, by which this process's own are left out.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import threading
import time
from collections.abc import Callable

from drivetrain.host.nft import made_by_us

_NETLINK_NETFILTER, _SOL_NETLINK, _ADD_MEMBERSHIP = 12, 270, 1
_GROUP_NFTABLES = 7
_SUBSYSTEM, _NEW_GENERATION = 10, 15
_GENERATION_THREAD = 2
#: Seconds from a change to the call: the first, the longest after doubling, and after how long a
#: quiet the first holds again.
_FIRST_DELAY, _LAST_DELAY, _QUIET = 0.05, 60.0, 120.0
_HEADER = struct.Struct("=IHHII")


class NftWatcher:
    """Calls back after transactions of others, from a thread of its own.

    It watches the network namespace that it is constructed in.

    Args:
        changed: called with the names of the tables that a transaction touched; with an empty
            set when the kernel lost count, and anything may have changed.
    """

    def __init__(self, changed: Callable[[set[str]], None]) -> None:
        self._changed = changed
        self._noted: set[str] = set()
        self._lost = False
        self._due: float | None = None
        self._told = 0.0
        self._delay = _FIRST_DELAY
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
        )
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._watch, name="nft-watch", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        touched: set[str] = set()
        while True:
            wait = None if self._due is None else max(0.0, self._due - time.monotonic())
            ready, _, _ = select.select([self._socket, self._stopped], [], [], wait)
            if self._stopped in ready:
                return
            if self._socket not in ready:
                self._tell()
                continue
            try:
                data = self._socket.recv(1 << 20)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    return
                self._note(set(), lost=True)
                continue
            touched = self._read(data, touched)

    def _read(self, data: bytes, touched: set[str]) -> set[str]:
        """Read announcements; return the tables of a transaction whose end is still to come."""
        offset = 0
        while offset < len(data):
            length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
            attributes = _attributes(data[offset + 20 : offset + length])
            if kind >> 8 == _SUBSYSTEM and kind & 255 == _NEW_GENERATION:
                thread = int.from_bytes(attributes.get(_GENERATION_THREAD, b""), "big")
                if touched and not made_by_us(thread):
                    self._note(touched)
                touched = set()
            elif kind >> 8 == _SUBSYSTEM and 1 in attributes:
                touched.add(attributes[1].rstrip(b"\0").decode(errors="replace"))
            offset += (length + 3) & ~3
        return touched

    def _note(self, touched: set[str], *, lost: bool = False) -> None:
        self._noted |= touched
        self._lost = self._lost or lost
        if self._due is None:
            self._due = time.monotonic() + self._delay

    def _tell(self) -> None:
        now = time.monotonic()
        # Whoever changes it back each time must not keep both of us busy.
        quiet = now - self._told > _QUIET
        self._delay = _FIRST_DELAY if quiet else min(self._delay * 2, _LAST_DELAY)
        noted = set() if self._lost else self._noted
        self._noted, self._lost, self._due, self._told = set(), False, None, now
        self._changed(noted)

    def close(self) -> None:
        """Stop watching; may be called twice."""
        self._stop.close()
        if self._thread is not threading.current_thread():
            self._thread.join(5)
        self._socket.close()
        self._stopped.close()


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found
