#!/usr/bin/env python3
"""How an overlay grows: a real etcd, the driver's own code, and hosts that are simulated.

::

    # .venv/bin/python tools/overlay_scale.py 100:5000 1000:50000

For each ``hosts:endpoints`` all endpoints are on one network, which is the worst case: every host
has to know all of them. What is measured is told line by line; docs/guides/overlay.md explains it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

from drivetrain.host import namespaces
from drivetrain.network import Network, Subnet
from drivetrain.options import parse_options
from drivetrain.testing.etcd import EtcdServer
from drivetrain_network_overlay import kv
from drivetrain_network_overlay.documents import Claim, EndpointDocument, NetworkDocument
from drivetrain_network_overlay.domain import Domain
from drivetrain_network_overlay.etcd import Access, Etcd
from drivetrain_network_overlay.following import Follower
from drivetrain_network_overlay.forwarding import Forwarding
from drivetrain_network_overlay.options import NETWORK_OPTIONS
from drivetrain_network_overlay.segment import Segment, Tunnel
from drivetrain_network_overlay.store import Allocator, Store, bounds

SUBNET = ip_network("10.0.0.0/8")
FOLLOWERS, CHANGES, CLAIMS, CLAIMANTS = 50, 200, 400, 8


def tell(what: str, value: object) -> None:
    """Print a measurement."""
    print(f"  {what:<58} {value}", flush=True)


def endpoint(home: str, number: int, hosts: int) -> EndpointDocument:
    """Return what a simulated host registers."""
    address = IPv4Address(int(SUBNET.network_address) + 2 + number)
    host = number % hosts
    return EndpointDocument(
        id=f"{number:064x}", network=home, container=f"{number:064x}",
        addresses=[f"{address}/8"], mac="02:42:" + ":".join(f"{b:02x}" for b in address.packed),
        host=f"{host:032x}", tunnel=str(ip_address("172.16.0.1") + host),
        names=[f"container-{number}", f"{number:012x}"],
    )  # fmt: skip


def fill(store: Store, home: str, hosts: int, endpoints: int) -> None:
    """Write everything that the simulated hosts have."""
    leases = [store.etcd.grant(3600) for _ in range(min(hosts, 100))]
    operations = []
    for number in range(endpoints):
        made = endpoint(home, number, hosts)
        lease = leases[number % len(leases)]
        claim = Claim(made.host, made.id).encode()
        operations.append(kv.put(store.keys.endpoint(home, made.id), made.encode(), lease))
        address = made.plain_addresses()[0]
        operations.append(kv.put(store.keys.address(home, address), claim, lease))
        if len(operations) >= 120:
            store.etcd.transact([], operations)
            operations = []
    store.etcd.transact([], operations)


def lines(folder: Path, *command: str) -> int:
    """Count the lines that a command says in the segment."""
    inside = ["nsenter", f"--net={folder}/segment"]
    done = subprocess.run([*inside, *command], text=True, capture_output=True, check=True)
    return done.stdout.count("\n")


def converge(store: Store, home: str, hosts: int, folder: Path) -> None:
    """One host that joins the network: list, index, and entries in the kernel."""
    options = parse_options("overlay", NETWORK_OPTIONS, {})
    network = Network(home, "net", (Subnet(SUBNET, ip_address("10.0.0.1")),), options)
    with Forwarding() as host:
        segment = Segment(network, folder / "segment", None, host)
        segment.make(Tunnel(4096, ip_address("127.0.0.1"), 4789, 1450))
        try:
            begun = time.perf_counter()
            items, _ = store.etcd.range(store.keys.endpoints(home))
            tell("list of the endpoints, s", f"{time.perf_counter() - begun:.2f}")
            del items
            domain = Domain(network, NetworkDocument(home, "net"), segment, "none", lambda: None)
            begun = time.perf_counter()
            domain.follow(store, 600)
            took = time.perf_counter() - begun
            tell("a host joins: list, index, kernel entries, s", f"{took:.2f}")
            fdb = lines(folder, "bridge", "fdb", "show", "dev", "vx0")
            neighbours = lines(folder, "ip", "neigh", "show", "dev", "br0")
            tell("kernel entries of one host: forwarding, neighbours", f"{fdb}, {neighbours}")
            memory = Path("/proc/self/status").read_text()
            tell("memory of the process, MB",
                 int(memory.split("VmRSS:")[1].split()[0]) // 1024)  # fmt: skip
            domain.close()
        finally:
            segment.remove()


def churn(server: EtcdServer, store: Store, home: str, hosts: int, endpoints: int) -> None:
    """Changes of the network, seen by followers in threads."""
    sent: dict[str, float] = {}
    delays: list[float] = []
    counted = threading.Semaphore(0)

    def told(changed: object, gone: object) -> None:
        now = time.perf_counter()
        for item in changed:  # type: ignore[attr-defined]
            name = item.key.rpartition(b"/")[2].decode()
            if name in sent:
                delays.append(now - sent[name])
                counted.release()

    client = Etcd(Access((server.url,)))
    prefix = store.keys.endpoints(home)
    # They do not list: FOLLOWERS times the list in one process says nothing about hosts.
    followers = [Follower(client, prefix, told, f"f{n}") for n in range(FOLLOWERS)]
    _, revision = client.range(store.keys.hosts)
    for follower in followers:
        follower._revision = revision
        follower.start()
    time.sleep(1)
    before = cpu(server)
    begun = time.perf_counter()
    for number in range(endpoints, endpoints + CHANGES):
        made = endpoint(home, number, hosts)
        sent[made.id] = time.perf_counter()
        store.etcd.put(store.keys.endpoint(home, made.id), made.encode())
    for _ in range(CHANGES * FOLLOWERS):
        counted.acquire(timeout=60)
    took = time.perf_counter() - begun
    used = cpu(server) - before
    for follower in followers:
        follower.close()
    delays.sort()
    tell(f"{CHANGES} changes seen by {FOLLOWERS} hosts, events/s", f"{len(delays) / took:.0f}")
    middle, late = statistics.median(delays) * 1e3, delays[int(len(delays) * 0.99)] * 1e3
    tell("delay of an event, ms: median, 99 %", f"{middle:.1f}, {late:.1f}")
    tell("etcd's processor time for each event, µs", f"{used / len(delays) * 1e6:.0f}")


def cpu(server: EtcdServer) -> float:
    """Return the seconds of processor time that etcd has used."""
    assert server._process is not None
    fields = Path(f"/proc/{server._process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def claims(store: Store, home: str) -> None:
    """Hosts that allocate at once from a subnet whose addresses are half taken."""
    lease = store.etcd.grant(600)
    first, last = bounds(ip_network("10.0.0.0/8"))
    allocators = [
        Allocator(store, home, f"claimant{number}", first, last) for number in range(CLAIMANTS)
    ]
    begun = time.perf_counter()
    allocators[0].learn()
    tell("list of the addresses taken, s", f"{time.perf_counter() - begun:.2f}")
    for each in allocators[1:]:
        each._taken, each._known = set(allocators[0]._taken), True
    given: list[object] = []

    def work(number: int) -> None:
        for each in range(CLAIMS // CLAIMANTS):
            given.append(allocators[number].take(f"{number}-{each}", lease))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLAIMANTS)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begun
    assert len(set(given)) == CLAIMS
    tell(f"addresses allocated by {CLAIMANTS} hosts at once, 1/s", f"{CLAIMS / took:.0f}")


def keep(server: EtcdServer, store: Store, hosts: int) -> None:
    """Renew leases."""
    leases = [store.etcd.grant(600) for _ in range(200)]
    before, begun = cpu(server), time.perf_counter()
    for lease in leases:
        store.etcd.keep_alive(lease)
    took, used = time.perf_counter() - begun, cpu(server) - before
    rate = hosts * 2 / 10
    tell("renewing a lease, ms", f"{took / len(leases) * 1e3:.2f}")
    tell(f"etcd's load by {hosts} hosts that renew two every 10 s, %",
         f"{rate * used / len(leases) * 100:.1f}")  # fmt: skip


def run(hosts: int, endpoints: int) -> None:
    """Measure one size."""
    print(f"{hosts} hosts, {endpoints} endpoints on one network", flush=True)
    with EtcdServer() as server, tempfile.TemporaryDirectory() as folder:
        store = Store(Etcd(Access((server.url,))), "/scale")
        made = store.create_network(
            NetworkDocument("f" * 64, "net", subnets=[{"prefix": str(SUBNET)}])
        )
        begun = time.perf_counter()
        fill(store, made.id, hosts, endpoints)
        tell("keys written in, s", f"{time.perf_counter() - begun:.1f}")
        size = sum(p.stat().st_size for p in (server.root / "data/member/snap").iterdir())
        tell("keys", 2 * endpoints + hosts)
        tell("etcd's database, MB", f"{size / 1e6:.0f}")
        tell("bytes of an endpoint's document",
             len(endpoint(made.id, endpoints, hosts).encode()))  # fmt: skip
        converge(store, made.id, hosts, Path(folder))
        churn(server, store, made.id, hosts, endpoints)
        claims(store, made.id)
        keep(server, store, hosts)


def main() -> None:
    """Measure, in a network namespace of its own."""
    place = Path(tempfile.mkdtemp()) / "own"
    namespaces.new_network_namespace(place)
    try:
        with namespaces.inside(place):
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            for text in sys.argv[1:] or ["10:500", "100:5000", "1000:50000"]:
                hosts, _, endpoints = text.partition(":")
                run(int(hosts), int(endpoints))
    finally:
        namespaces.remove_network_namespace(place)
        place.parent.rmdir()


if __name__ == "__main__":
    main()
