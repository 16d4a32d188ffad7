"""Noticing that somebody else changed nftables: a flush, a firewall's reload.

The kernel tells of every transaction; nothing is asked for and nothing polled. A transaction names
the thread that made it, by which this process's own are left out.
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Callable

from drivetrain.host.nft import made_by_us

_NETLINK_NETFILTER, _SOL_NETLINK, _ADD_MEMBERSHIP = 12, 270, 1
_GROUP_NFTABLES = 7
_SUBSYSTEM, _NEW_GENERATION = 10, 15
_GENERATION_THREAD = 2
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
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
        )
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._watch, name="nft-watch", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        import select

        touched: set[str] = set()
        while True:
            ready, _, _ = select.select([self._socket, self._stopped], [], [])
            if self._stopped in ready:
                return
            try:
                data = self._socket.recv(1 << 20)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    return
                self._changed(set())
                continue
            offset = 0
            while offset < len(data):
                length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
                attributes = _attributes(data[offset + 20 : offset + length])
                if kind >> 8 == _SUBSYSTEM and kind & 255 == _NEW_GENERATION:
                    thread = int.from_bytes(attributes.get(_GENERATION_THREAD, b""), "big")
                    if touched and not made_by_us(thread):
                        self._changed(touched)
                    touched = set()
                elif kind >> 8 == _SUBSYSTEM and 1 in attributes:
                    touched.add(attributes[1].rstrip(b"\0").decode(errors="replace"))
                offset += (length + 3) & ~3

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
