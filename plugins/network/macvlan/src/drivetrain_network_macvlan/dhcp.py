"""Addresses by DHCP: one ``busybox udhcpc`` for each container, in the container's namespace.

The client is started when the container joins, outside of the container (it sees the host's files
and has a process of its own), and ends when the container leaves, giving its lease back. It keeps
the lease alive by itself: the daemon is not needed for that, and one that restarts or is killed
leaves it running. Everything about it is in one directory, which its command line
names; that is how it is found again::

    dhcp/ENDPOINT/script    what udhcpc calls when the server said something
    dhcp/ENDPOINT/lease     the lease: address, gateway, seconds, server
    dhcp/ENDPOINT/sandbox   the namespace it is for

A thread for each client waits for its end; a client that somebody else ended is started again, and
asks for the address that the container has.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from pathlib import Path

from drivetrain.errors import NotSupported, Unavailable
from drivetrain.host import namespaces
from drivetrain.network import Address, Endpoint, Interface, Sandbox

log = logging.getLogger("engine.network.macvlan")

#: Seconds until a client that ended is started again: the first time, and at most.
PAUSE, LONGEST_PAUSE = 0.5, 60.0
#: Seconds that a client gets to give its lease back.
RELEASE = 3.0
#: Called by udhcpc with what happened as the argument, and the server's words as variables. The
#: engine sets the first default route; changes later on are made here.
SCRIPT = """#!/bin/sh
cd "${0%/*}" || exit 1
old=$(sed -n 's/^address=//p' lease 2>/dev/null)
drop() {
    # With an address the routes by its gateway go.
    if busybox ip route show default | grep -q "dev $interface"; then touch default; fi
    busybox ip address del "$old" dev "$interface"
}
case "$1" in
bound | renew)
    new="$ip/${mask:-32}"
    gateway="${router%% *}"
    if [ -n "$old" ] && [ "$old" != "$new" ]; then drop; fi
    busybox ip address show dev "$interface" | grep -q "inet $new " ||
        busybox ip address add "$new" dev "$interface"
    if [ -e default ] && [ -n "$gateway" ]; then
        busybox ip route replace default via "$gateway" dev "$interface" && rm default
    fi
    printf 'address=%s\\ngateway=%s\\nseconds=%s\\nserver=%s\\n' \\
        "$new" "$gateway" "$lease" "$serverid" >lease.new && mv lease.new lease
    ;;
deconfig)
    # udhcpc says so at its start, too: a client that takes over for a dead one keeps the address.
    if [ -e keep ]; then
        rm keep
    elif [ -n "$old" ]; then
        drop
        rm lease
    fi
    ;;
esac
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """What the server said: an address with its prefix length, and where the way out is."""

    address: Interface
    gateway: Address | None


class Dhcp:
    """The DHCP clients of one driver.

    Args:
        root: the driver's directory.
    """

    def __init__(self, root: Path) -> None:
        self._root = root / "dhcp"
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        #: What tells the client of one join from that of the next, for endpoints that want one.
        self._wanted: dict[str, object] = {}
        self._closing = os.eventfd(0, os.EFD_CLOEXEC)

    def close(self) -> None:
        """Watch no longer; the clients go on. May be called twice."""
        os.eventfd_write(self._closing, 1)

    def _directory(self, endpoint: str) -> Path:
        return self._root / endpoint

    def lease(self, endpoint: Endpoint) -> Lease | None:
        """Return an endpoint's lease, or ``None`` while it has none."""
        try:
            text = (self._directory(endpoint.id) / "lease").read_text()
        except FileNotFoundError:
            return None
        found = dict(line.partition("=")[::2] for line in text.splitlines())
        gateway = ip_address(found["gateway"]) if found.get("gateway") else None
        return Lease(ip_interface(found["address"]), gateway)

    def begin(self, endpoint: Endpoint, sandbox: Sandbox, parent: str, timeout: float) -> Lease:
        """Start a client in the sandbox and wait for the first lease.

        Args:
            endpoint: its interface exists and is up.
            sandbox: its namespace.
            parent: for messages.
            timeout: in seconds.

        Raises:
            NotSupported: there is no udhcpc.
            Unavailable: no server gave an address in time; nothing of the client is left.
        """
        self.end(endpoint)
        directory = self._directory(endpoint.id)
        directory.mkdir(parents=True)
        (directory / "sandbox").write_text(f"{sandbox.path}\n{endpoint.interface}\n")
        (directory / "script").write_text(SCRIPT)
        (directory / "script").chmod(0o755)
        self._start(endpoint, sandbox.path, endpoint.interface)
        deadline = time.monotonic() + timeout
        while (lease := self.lease(endpoint)) is None:
            if time.monotonic() > deadline or self._children[endpoint.id].poll() is not None:
                self.end(endpoint)
                raise Unavailable(
                    f"no DHCP server on the network of {parent} gave an address within "
                    f"{timeout:.0f} s (see the option dhcp_timeout)"
                )
            time.sleep(0.02)
        self._keep(endpoint, self._children[endpoint.id].pid)
        return lease

    def _start(self, endpoint: Endpoint, namespace: Path, interface: str, ask: str = "") -> None:
        busybox = shutil.which("busybox")
        if busybox is None:
            raise NotSupported("dhcp needs busybox with udhcpc: apt-get install busybox-static")
        command = [busybox, "udhcpc", "-f", "-R", "-i", interface]
        command += ["-s", str(self._directory(endpoint.id) / "script"), "-t", "5", "-T", "2"]
        command += ["-A", "5"]
        if endpoint.names:
            command += ["-x", f"hostname:{endpoint.names[0]}"]
        if ask:
            command += ["-r", ask]

        def start() -> subprocess.Popen[bytes]:
            # The child is in the namespace of the thread that forks it.
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )

        self._children[endpoint.id] = namespaces.run_in(namespace, start)

    def again(self, endpoint: Endpoint) -> None:
        """After a start of the daemon: see that the client of a running container runs."""
        if endpoint.id in self._wanted or self.lease(endpoint) is None:
            return
        pid = next(self._running(endpoint.id), None) or self._take_over(endpoint)
        if pid is not None:
            self._keep(endpoint, pid)

    def _take_over(self, endpoint: Endpoint) -> int | None:
        """Start a client for one that ended; ``None``: the container is gone."""
        directory, lease = self._directory(endpoint.id), self.lease(endpoint)
        try:
            namespace, interface = (directory / "sandbox").read_text().splitlines()
        except FileNotFoundError:
            return None
        if not namespaces.is_namespace(Path(namespace)):
            return None
        if lease is not None:
            (directory / "keep").touch()
        self._start(endpoint, Path(namespace), interface, str(lease.address.ip) if lease else "")
        return self._children[endpoint.id].pid

    def _keep(self, endpoint: Endpoint, pid: int) -> None:
        token = self._wanted[endpoint.id] = object()
        threading.Thread(
            target=self._watch, args=(endpoint, pid, token), name="dhcp", daemon=True
        ).start()

    def _watch(self, endpoint: Endpoint, pid: int | None, token: object) -> None:
        """Start a client again whenever it ends, as long as it is wanted."""
        pause = PAUSE
        while pid is not None:
            begun = time.monotonic()
            if not self._ends(pid):
                return
            if time.monotonic() - begun > LONGEST_PAUSE:
                pause = PAUSE
            if select.select([self._closing], [], [], pause)[0]:
                return
            pause = min(2 * pause, LONGEST_PAUSE)
            with self._lock:
                if self._wanted.get(endpoint.id) is not token:
                    return
                log.warning("the DHCP client of endpoint %s ended: again", endpoint.id[:12])
                self._reap(endpoint.id)
                pid = self._take_over(endpoint)

    def _ends(self, pid: int) -> bool:
        """Wait for the end of a process; false: of the watching."""
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            return not select.select([handle, self._closing], [], [])[0].count(self._closing)
        finally:
            os.close(handle)

    def _reap(self, endpoint: str) -> None:
        child = self._children.pop(endpoint, None)
        if child is not None:
            child.wait()

    def end(self, endpoint: Endpoint) -> None:
        """End an endpoint's client and give its lease back; none is fine."""
        self._end(endpoint.id)

    def _end(self, endpoint: str) -> None:
        with self._lock:
            self._wanted.pop(endpoint, None)
        if not self._directory(endpoint).exists():
            return
        for pid in self._running(endpoint):
            _terminate(pid)
        self._reap(endpoint)
        shutil.rmtree(self._directory(endpoint), ignore_errors=True)

    def sweep(self, wanted: set[str]) -> None:
        """End the clients of endpoints that are not ``wanted``."""
        if self._root.exists():
            for directory in list(self._root.iterdir()):
                if directory.name not in wanted:
                    self._end(directory.name)

    def _running(self, endpoint: str) -> Iterator[int]:
        """Yield the ids of the processes whose command line names the endpoint's script."""
        needle = os.fsencode(self._directory(endpoint) / "script")
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    if b"udhcpc" in words and needle in words:
                        yield int(entry.name)


def _terminate(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            ended, _, _ = select.select([handle], [], [], RELEASE)
            if not ended:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
