"""The options of a bridge network, by the names that docker's users know."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from drivetrain.errors import InvalidArgument
from drivetrain.network import Address, Network
from drivetrain.options import Option

PREFIX = "com.docker.network.bridge."
MODES = ("nat", "nat-unprotected", "routed", "isolated")

NETWORK_OPTIONS = (
    Option(f"{PREFIX}name", help="of the bridge; one that exists is used and never deleted"),
    Option(f"{PREFIX}enable_icc", "boolean", default=True, help="containers reach each other"),
    Option(
        f"{PREFIX}enable_ip_masquerade",
        "boolean",
        default=True,
        help="outgoing traffic has the host's address",
    ),
    Option(f"{PREFIX}gateway_mode_ipv4", "choice", default="nat", choices=MODES,
           help="how the network is connected to the world"),
    Option(f"{PREFIX}gateway_mode_ipv6", "choice", default="nat", choices=MODES,
           help="the same for IPv6"),
    Option(f"{PREFIX}inhibit_ipv4", "boolean", default=False, help="the bridge has no address"),
    Option(f"{PREFIX}host_binding_ipv4", default="", help="where ports are published by default"),
    Option(f"{PREFIX}default_bridge", "boolean", default=False, help="accepted"),
    Option(f"{PREFIX}trusted_host_interfaces", help="may reach container addresses; by colons"),
    Option("com.docker.network.driver.mtu", "integer", default=0, help="in bytes; 0: 1500"),
    Option("com.docker.network.container_iface_prefix", help="instead of eth"),
    Option("com.docker.network.enable_ipv4", "boolean", help="accepted; see --ipv4"),
    Option("com.docker.network.enable_ipv6", "boolean", help="accepted; see --ipv6"),
    Option("com.docker.network.host_ipv4", default="", help="source address instead of masquerade"),
    Option("com.docker.network.host_ipv6", default="", help="the same for IPv6"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """The options of one network, ready to use.

    Attributes:
        name: of the bridge.
        icc: containers reach each other.
        masquerade: outgoing traffic gets the host's address.
        mode4, mode6: ``nat``; ``nat-unprotected``: container addresses may be reached directly as
            well; ``routed``: they are reached by published ports, untranslated; ``isolated``: an
            internal network whose bridge has no address.
        inhibit_ipv4: the bridge has no address of its own.
        mtu: 0: the kernel's.
        source4, source6: instead of masquerading; empty: masquerade.
        binding: where ports are published by default; ``None``: everywhere.
        trusted: interfaces that may reach container addresses directly.
    """

    name: str
    icc: bool
    masquerade: bool
    mode4: str
    mode6: str
    inhibit_ipv4: bool
    mtu: int
    source4: str
    source6: str
    binding: Address | None
    trusted: tuple[str, ...]


def settings(network: Network) -> BridgeSettings:
    """Read a network's options.

    Raises:
        InvalidArgument: a value that cannot be, with its name.
    """
    options = network.options
    name = options.string(f"{PREFIX}name") or f"br-{network.id[:12]}"
    if len(name) > 15 or "/" in name or any(c.isspace() for c in name) or name in (".", ".."):
        raise InvalidArgument(f"option {PREFIX}name={name!r}: 1 to 15 characters without / needed")
    mtu = options.integer("com.docker.network.driver.mtu")
    if mtu and not 68 <= mtu <= 65535:
        raise InvalidArgument(f"option com.docker.network.driver.mtu={mtu}: 68 to 65535 is needed")
    source4 = _address(network, "com.docker.network.host_ipv4", IPv4Address)
    source6 = _address(network, "com.docker.network.host_ipv6", IPv6Address)
    binding = _address(network, f"{PREFIX}host_binding_ipv4", IPv4Address)
    modes = [options.string(f"{PREFIX}gateway_mode_ipv{version}") for version in (4, 6)]
    for version, mode in zip((4, 6), modes, strict=True):
        if mode == "isolated" and not network.internal:
            raise InvalidArgument(
                f"option {PREFIX}gateway_mode_ipv{version}=isolated needs an --internal network"
            )
    trusted = options.string(f"{PREFIX}trusted_host_interfaces")
    return BridgeSettings(
        name=name,
        icc=options.boolean(f"{PREFIX}enable_icc"),
        masquerade=options.boolean(f"{PREFIX}enable_ip_masquerade"),
        mode4=modes[0],
        mode6=modes[1],
        inhibit_ipv4=options.boolean(f"{PREFIX}inhibit_ipv4"),
        mtu=mtu,
        source4=source4,
        source6=source6,
        binding=ip_address(binding) if binding else None,
        trusted=tuple(name for name in trusted.split(":") if name),
    )


def _address(network: Network, name: str, kind: type[IPv4Address] | type[IPv6Address]) -> str:
    text = network.options.string(name)
    if text:
        try:
            kind(text)
        except ValueError:
            version = "IPv4" if kind is IPv4Address else "IPv6"
            raise InvalidArgument(
                f"option {name}={text!r}: an {version} address is needed"
            ) from None
    return text
