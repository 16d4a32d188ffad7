"""A DHCP server for tests: busybox's, on the other machine of a lan."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.lan import Lan


@contextlib.contextmanager
def serve(lan: Lan, first: int = 100, seconds: int = 600) -> Iterator[Path]:
    """Run a DHCP server; yields the file of its leases, which SIGUSR1 writes."""
    leases, config = lan.root / "leases", lan.root / "udhcpd.conf"
    leases.touch()
    config.write_text(
        f"start 192.168.7.{first}\nend 192.168.7.{first + 20}\ninterface far\n"
        "min_lease 2\nmax_leases 20\n"
        f"lease_file {leases}\npidfile {lan.root}/udhcpd.pid\n"
        f"option subnet 255.255.255.0\noption router 192.168.7.1\noption lease {seconds}\n"
    )
    command = ["nsenter", f"--net={lan.other}", "busybox", "udhcpd", "-f", str(config)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield leases
    finally:
        server.terminate()
        server.wait()
