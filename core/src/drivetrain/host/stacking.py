"""What drivers whose links are on a parent (macvlan, ipvlan) have in common.

See :mod:`drivetrain.host.parents` for the parents themselves.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Collection
from pathlib import Path

from drivetrain.errors import InvalidArgument, NotSupported
from drivetrain.host import namespaces
from drivetrain.host.netlink import LinkInfo, Netlink
from drivetrain.network import Network
from drivetrain.options import Option

#: Seconds to wait for the kernel to take down the links of a namespace that was left just now.
REAPING = 5.0
MTU = "com.docker.network.driver.mtu"
PARENT = Option(
    "parent", default="",
    help="the host's interface, or a VLAN on one (eth0.50); without: an internal network",
)  # fmt: skip
#: Options of every such network, besides ``PARENT``.
OPTIONS = (
    Option(MTU, "integer", default=0, help="in bytes; 0: the parent's"),
    Option("com.docker.network.container_iface_prefix", help="instead of eth"),
    Option("com.docker.network.enable_ipv4", "boolean", help="accepted; see --ipv4"),
    Option("com.docker.network.enable_ipv6", "boolean", help="accepted; see --ipv6"),
)


def probe(kind: str, stack: Callable[[Netlink, str, int], None]) -> None:
    """Make a link for real, in a namespace of its own.

    Args:
        kind: ``macvlan`` or ``ipvlan``.
        stack: makes one, of a name on a parent of an index.

    Raises:
        NotSupported: this host cannot.
    """

    def work() -> None:
        with Netlink() as netlink:
            netlink.veth("lower", "other", peer_up=True)
            stack(netlink, "upper", netlink.index("lower"))

    try:
        namespaces.run_in_new(work)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise NotSupported(
                f"this kernel has no {kind} (CONFIG_{kind.upper()}): modprobe {kind}; "
                "distributions have it in their ordinary kernels"
            ) from error
        raise NotSupported(
            f"this host cannot make {kind} links: {error.strerror}; run as root"
        ) from error


def when_reaped(work: Callable[[], None], passing: Collection[int]) -> None:
    """Call ``work`` again while something of a container that stopped just now is in its way.

    The kernel takes a namespace down in its own time; until then its links have their addresses.

    Args:
        work: raises ``OSError`` with one of ``passing`` as long as that is so.
        passing: error numbers.
    """
    deadline = time.monotonic() + REAPING
    while True:
        try:
            return work()
        except OSError as error:
            if error.errno not in passing or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def sysctls() -> dict[str, str]:
    """Return what links get, lest routers of the parent's network announce themselves to them."""
    has_ipv6 = Path("/proc/sys/net/ipv6").exists()
    return {"net.ipv6.conf.IFNAME.accept_ra": "0"} if has_ipv6 else {}


def faults(network: Network, parent: str) -> list[str]:
    """Return what contradicts itself in the options of every such network.

    Args:
        network: with them.
        parent: empty: it has none of the host's.
    """
    found, mtu = [], network.options.integer(MTU)
    if network.internal and parent:
        found.append(
            f"an internal network has no parent, and {parent} leads out: leave out "
            "--internal or the option parent"
        )
    if mtu and not 68 <= mtu <= 65535:
        found.append(f"option {MTU}={mtu}: 68 to 65535 is needed")
    return found


def check_mtu(network: Network, parent: LinkInfo) -> None:
    """Check that packets of a network fit its parent.

    Raises:
        InvalidArgument: they do not.
    """
    mtu = network.options.integer(MTU)
    if mtu > parent.mtu:
        raise InvalidArgument(
            f"network {network.name}: an MTU of {mtu} is more than the {parent.mtu} "
            f"of its parent {parent.name}"
        )
