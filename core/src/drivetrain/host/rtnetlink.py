"""The socket and the messages of rtnetlink(7); what drivers use is in ``drivetrain.host.netlink``.

pyroute2 encodes and decodes the messages, but for those that every start sends (``rtmessages``);
the socket is ours, because one ``sendmsg`` then carries a whole batch and no event loop stands
between a thread and the kernel. ``import pyroute2`` costs 170 ms and 33 MB, so it is imported at
the first use: the daemon pays for it, nobody else.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from drivetrain.host import namespaces
from drivetrain.host.rtmessages import IFF_UP

RTM_GETLINK, RTM_DELADDR, RTM_GETADDR, RTM_DELROUTE, RTM_GETROUTE = 18, 21, 22, 25, 26
REQUEST, ACK, DUMP = 1, 4, 0x300
ERROR, DONE = 2, 3
HEADER = struct.Struct("=IHHII")
_SIOCGIFINDEX = 0x8933
#: struct ifreq with an index.
_IFREQ = struct.Struct("16si20x")


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """A link as the kernel shows it.

    Attributes:
        index: in its namespace.
        name: such as ``eth0``.
        kind: ``bridge``, ``veth``, …; empty for a device of the hardware.
        alias: the free text that ``ip link set alias`` writes.
        master: index of the bridge it is a port of; 0: none.
        parent: index of the link it is stacked on (VLAN, macvlan, ipvlan), or of a veth's other
            end; 0: none, or in another namespace.
        mac: lower case with colons.
        mtu: in bytes.
        up: it is administratively up.
    """

    index: int
    name: str
    kind: str
    alias: str
    master: int
    mac: str
    mtu: int
    up: bool
    parent: int = 0


def attributes_of(message: Any) -> dict[str, Any]:
    """Return the attributes of a message by their names."""
    return dict(message["attrs"])


class Connection:
    """A NETLINK_ROUTE socket in one network namespace; every method may be called by any thread.

    Args:
        namespace: the namespace to open it in; ``None``: that of the calling thread.
    """

    def __init__(self, namespace: Path | None = None) -> None:
        if namespace is None:
            self._socket = self._open()
        else:
            self._socket = namespaces.run_in(namespace, self._open)
        self._lock = threading.Lock()
        self._sequence = 0

    @staticmethod
    def _open() -> socket.socket:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        opened.bind((0, 0))
        return opened

    def close(self) -> None:
        """Close the socket; may be called twice."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def index(self, name: str) -> int:
        """Return the index of a link.

        Raises:
            OSError: ``ENODEV``, there is no such link.
        """
        # By ioctl: it waits for nobody, while netlink waits for the teardown of other namespaces.
        request = _IFREQ.pack(name.encode(), 0)
        try:
            return int(_IFREQ.unpack(fcntl.ioctl(self._socket, _SIOCGIFINDEX, request))[1])
        except (OSError, struct.error) as error:
            raise OSError(errno.ENODEV, f"no link {name}") from error

    def _encode(self, message: Any, kind: int, flags: int) -> bytes:
        """Return a message, packed or one of pyroute2's, with its head."""
        self._sequence += 1
        if isinstance(message, bytes):
            size = HEADER.size + len(message)
            return HEADER.pack(size, kind, REQUEST | flags, self._sequence, 0) + message
        message["header"]["type"] = kind
        message["header"]["flags"] = REQUEST | flags
        message["header"]["sequence_number"] = self._sequence
        message.encode()
        return bytes(message.data)

    def _send(self, messages: Sequence[tuple[Any, int, int]], ignore: Sequence[int] = ()) -> None:
        """Send a batch in one call and wait for all answers; raise the first error."""
        if not messages:
            return
        with self._lock:
            batch = b"".join(self._encode(m, kind, flags | ACK) for m, kind, flags in messages)
            self._socket.sendto(batch, (0, 0))
            failed = 0
            waiting = len(messages)
            while waiting:
                data = self._socket.recv(65536)
                offset = 0
                while offset < len(data):
                    length, kind, _, _, _ = HEADER.unpack_from(data, offset)
                    if kind == ERROR:
                        waiting -= 1
                        code = -struct.unpack_from("=i", data, offset + HEADER.size)[0]
                        if code and code not in ignore:
                            failed = failed or code
                    offset += (length + 3) & ~3
        if failed:
            raise OSError(failed, os.strerror(failed))

    def _get(self, request: Any, kind: int, answer: Callable[[bytes], Any]) -> Any:
        """Send a request and return its one answer."""
        with self._lock:
            self._socket.sendto(self._encode(request, kind, 0), (0, 0))
            data = self._socket.recv(1 << 20)
        if HEADER.unpack_from(data)[1] == ERROR:
            code = -struct.unpack_from("=i", data, HEADER.size)[0]
            raise OSError(code, os.strerror(code))
        message = answer(data)
        message.decode()
        return message

    def _dump(self, request: Any, kind: int, answer: Callable[[bytes], Any]) -> list[Any]:
        """Send a request and return all answers."""
        found = [answer(data) for data in self._dump_packed(request, kind)]
        for message in found:
            message.decode()
        return found

    def _dump_packed(self, request: Any, kind: int) -> list[bytes]:
        """Send a request and return all answers as they come, with their heads."""
        found: list[bytes] = []
        with self._lock:
            self._socket.sendto(self._encode(request, kind, DUMP), (0, 0))
            while True:
                data = self._socket.recv(1 << 20)
                offset = 0
                while offset < len(data):
                    length, received, _, _, _ = HEADER.unpack_from(data, offset)
                    if received == DONE:
                        return found
                    if received == ERROR:
                        code = -struct.unpack_from("=i", data, offset + HEADER.size)[0]
                        raise OSError(code, os.strerror(code))
                    found.append(data[offset : offset + length])
                    offset += (length + 3) & ~3


@cache
def complete_kinds() -> None:
    """Teach pyroute2 the flags of ipvlan links (Linux 4.15), which it does not know."""
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.ifinfmsg.plugins.ipvlan import ipvlan as known

    class ipvlan(known):  # type: ignore[misc]  # noqa: N801
        nla_map = (*known.nla_map, ("IFLA_IPVLAN_FLAGS", "uint16"))

    ifinfmsg.ifinfo.register_link_kind(module={"ipvlan": ipvlan})


def link_of(message: Any) -> LinkInfo:
    """Return what a message says of a link."""
    attributes = attributes_of(message)
    info = attributes.get("IFLA_LINKINFO")
    kind = attributes_of(info).get("IFLA_INFO_KIND", "") if info else ""
    return LinkInfo(
        index=message["index"],
        name=attributes["IFLA_IFNAME"],
        kind=kind,
        alias=attributes.get("IFLA_IFALIAS", ""),
        master=attributes.get("IFLA_MASTER", 0) or 0,
        mac=attributes.get("IFLA_ADDRESS", ""),
        mtu=attributes.get("IFLA_MTU", 0),
        up=bool(message["flags"] & IFF_UP),
        parent=0 if "IFLA_LINK_NETNSID" in attributes else attributes.get("IFLA_LINK", 0) or 0,
    )
