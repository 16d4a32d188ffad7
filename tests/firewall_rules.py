"""Writes docs/guides/bridge-firewall.md from the rules that the bridge driver really makes.

``python -m tests.firewall_rules`` writes it anew; a test compares.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

from drivetrain.host.nft import Nft
from drivetrain.network import Endpoint, Network, NetworkState, PublishedPort, Subnet
from drivetrain.options import parse_options
from drivetrain.registry import Registry
from drivetrain.testing.netlab import Lab

DOCUMENT = Path(__file__).parent.parent / "docs" / "guides" / "bridge-firewall.md"
BRIDGE = "com.docker.network.bridge."

HEAD = """\
# The firewall of bridge networks

This page is generated (`python -m tests.firewall_rules`) from the rules that the driver makes; a
test compares them.

All rules are in one nftables table, `inet engine`. However many networks and ports there are, a
packet meets the same few rules: maps lead from the bridge to its chains, and from a published port
to its container. Each change is one atomic transaction. When somebody else flushes or changes the
table, the engine notices and puts its own part back.

## Your own rules

The chain `user` is consulted first and never flushed by us. It sees every forwarded packet, after
the address of a published port was translated; the original destination is in `ct`:

```console
# nft add rule inet engine user ct original proto-dst 8080 ip saddr != 192.0.2.0/24 drop
```

`nft flush ruleset` takes your rules away too; keep them where your system loads rules from.

## The firewall of the host

Nothing of another firewall (ufw, firewalld, your own tables) is changed. In nftables a packet has
to be accepted by every table, so a chain of yours at the hook `forward` that drops holds for
containers as well: their connections and published ports work when it lets them through, such as
by `ufw route allow` or a firewalld policy. `engine info` names such a chain under *Warning*.
Published ports pass `forward`, not `input`: rules for the host's own services do not see them.

## The rules
"""

CASES: tuple[tuple[str, bool, dict[str, str]], ...] = (
    ("Defaults, with port 80 published on 8080 and on 127.0.0.1:8081", False, {}),
    ("Containers do not reach each other (`enable_icc=false`)", False,
     {f"{BRIDGE}enable_icc": "false"}),
    ("An internal network", True, {}),
    ("Routed, no address is translated (`gateway_mode_ipv4/6=routed`), with port 80 opened", False,
     {f"{BRIDGE}gateway_mode_ipv4": "routed", f"{BRIDGE}gateway_mode_ipv6": "routed"}),
    ("Addresses reachable from outside (`gateway_mode_ipv4/6=nat-unprotected`)", False,
     {f"{BRIDGE}gateway_mode_ipv4": "nat-unprotected",
      f"{BRIDGE}gateway_mode_ipv6": "nat-unprotected"}),
    ("No masquerading, and a trusted interface", False,
     {f"{BRIDGE}enable_ip_masquerade": "false", f"{BRIDGE}trusted_host_interfaces": "eth1"}),
    ("A fixed source address (`host_ipv4`)", False,
     {"com.docker.network.host_ipv4": "192.0.2.7"}),
)  # fmt: skip


def document() -> str:
    """Return the page, from rules made in a namespace of their own."""
    root = Path(tempfile.mkdtemp(prefix="net-", dir="/tmp"))
    lab = Lab(root)
    try:
        with lab.entered():
            return HEAD + "".join(_sections(root))
    finally:
        lab.close()
        shutil.rmtree(root)


def _sections(root: Path) -> Iterator[str]:
    (root / "driver").mkdir()
    driver = Registry().network("bridge")
    driver.call.network_open(root / "driver", parse_options("bridge", (), {}))
    nft = Nft()
    for title, internal, options in CASES:
        network = _network(internal, {**options, f"{BRIDGE}name": "br0"})
        endpoint = Endpoint(
            "e" * 64, "c" * 64, (ip_interface("10.0.0.2/24"), ip_interface("fd00::2/64"))
        )
        translated = driver.call.port_policy(network).translated
        places = [("0.0.0.0", 8080 if translated else 0), ("::", 8080 if translated else 0)]
        if not options and not internal:
            places.append(("127.0.0.1", 8081))
        ports = tuple(PublishedPort("tcp", 80, ip_address(a), port) for a, port in places)
        published = () if internal else ((endpoint, ports),)
        driver.call.network_sync([NetworkState(network, published)])
        yield f"\n### {title}\n\n```\n{nft.run('list table inet engine').strip()}\n```\n"
    nft.close()
    driver.call.network_close()


def _network(internal: bool, options: dict[str, str]) -> Network:
    schema = Registry().network("bridge").call.network_options()
    return Network(
        id="0" * 64,
        name="example",
        subnets=(
            Subnet(ip_network("10.0.0.0/24"), ip_address("10.0.0.1")),
            Subnet(ip_network("fd00::/64"), ip_address("fd00::1")),
        ),
        options=parse_options("bridge", schema, options),
        internal=internal,
    )


if __name__ == "__main__":
    DOCUMENT.write_text(document())
    subprocess.run(["git", "diff", "--stat", str(DOCUMENT)], check=False)
