"""The options of an ipvlan network."""

from __future__ import annotations

from dataclasses import dataclass

from drivetrain.errors import InvalidArgument
from drivetrain.host import stacking
from drivetrain.network import Network
from drivetrain.options import Option

#: Mode and flag as the kernel numbers them (include/uapi/linux/if_link.h).
MODES = {"l2": 0, "l3": 1, "l3s": 2}
FLAGS = {"bridge": 0, "private": 1, "vepa": 2}

NETWORK_OPTIONS = (
    stacking.PARENT,
    Option("ipvlan_mode", "choice", default="l2", choices=tuple(MODES),
           help="l2: on the parent's network; l3: routed by the parent; l3s: routed, and seen by "
                "the host's firewall"),
    Option("ipvlan_flag", "choice", default="bridge", choices=tuple(FLAGS),
           help="whom containers reach: all (bridge), not each other (private), each other by the "
                "switch or router (vepa)"),
    *stacking.OPTIONS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class IpvlanSettings:
    """The options of one network, ready to use.

    Attributes:
        parent: name of the parent; the closed one's for a network without.
        closed: it has no parent of the host's.
        mode: ``l2``, ``l3`` or ``l3s``.
        flag: ``bridge``, ``private`` or ``vepa``.
        mtu: 0: the parent's.
    """

    parent: str
    closed: bool
    mode: str
    flag: str
    mtu: int

    @property
    def routed(self) -> bool:
        """Containers have no neighbours but routes through the parent."""
        return self.mode != "l2"


def settings(network: Network) -> IpvlanSettings:
    """Read a network's options.

    Raises:
        InvalidArgument: options that contradict each other.
    """
    options = network.options
    parent = options.string("parent")
    chosen = IpvlanSettings(
        parent=parent or f"ic-{network.id[:12]}",
        closed=not parent,
        mode=options.string("ipvlan_mode"),
        flag=options.string("ipvlan_flag"),
        mtu=options.integer(stacking.MTU),
    )
    faults = stacking.faults(network, "" if chosen.closed else chosen.parent)
    if not network.subnets:
        faults.append("an ipvlan network needs a subnet")
    if faults:
        raise InvalidArgument(f"network {network.name}: " + "; ".join(faults))
    return chosen
