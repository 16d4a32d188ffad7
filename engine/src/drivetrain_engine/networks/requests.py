"""What others ask of networks, and what they get."""

from __future__ import annotations

from pathlib import Path

import msgspec


class NetworkSettings(msgspec.Struct, frozen=True):
    """The daemon's settings for networks; names as in ``daemon.json``.

    Attributes:
        bip, bip6: addresses of the default bridge with their prefix lengths.
        fixed_cidr, fixed_cidr_v6: the parts of the default bridge's subnets that containers get
            addresses from.
        default_gateway, default_gateway_v6: of containers on the default bridge, instead of the
            bridge.
        host_address: that the default bridge publishes ports on; empty: all.
        mtu: of the default bridge, in bytes; 0: the kernel's.
        dns, dns_search, dns_options: for containers that name none.
        default_address_pools: pairs of a base and the prefix length of the subnets cut from it.
        ipv6: the default bridge has IPv6.
        icc: containers on the default bridge reach each other.
        ip_masq: and leave it with the host's address.
        cluster: options for drivers of global scope, by name; empty: this host is in no cluster.
    """

    bip: str = ""
    bip6: str = ""
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    default_gateway: str = ""
    default_gateway_v6: str = ""
    host_address: str = ""
    mtu: int = 0
    dns: list[str] = []
    dns_search: list[str] = []
    dns_options: list[str] = []
    default_address_pools: list[tuple[str, int]] = []
    ipv6: bool = False
    icc: bool = True
    ip_masq: bool = True
    cluster: dict[str, str] = {}


class Attachment(msgspec.Struct):
    """What a user asks of one network of a container; names as in the API's EndpointSettings."""

    network: str
    aliases: list[str] = []
    ipv4: str = ""
    ipv6: str = ""
    link_local: list[str] = []
    mac: str = ""
    driver_opts: dict[str, str] = {}
    gw_priority: int = 0
    links: list[str] = []


class PortRequest(msgspec.Struct):
    """A port to publish.

    Attributes:
        protocol: ``tcp``, ``udp`` or ``sctp``.
        container_port: inside.
        host_ip: where; empty: the network's default.
        host_port: 0: a free one is chosen.
        host_port_end: the end of a range to choose from; 0: no range.
    """

    protocol: str
    container_port: int
    host_ip: str = ""
    host_port: int = 0
    host_port_end: int = 0


class SandboxRequest(msgspec.Struct):
    """What a container needs to be on its networks.

    Attributes:
        directory: where ``hosts``, ``resolv.conf`` and ``hostname`` are written.
        extra_hosts: ``name:address``; the address may be ``host-gateway``.
        sysctls: those of the namespace, ``net.…``.
    """

    container_id: str
    name: str
    hostname: str
    domainname: str
    attachments: list[Attachment]
    ports: list[PortRequest]
    dns: list[str]
    dns_search: list[str]
    dns_options: list[str]
    extra_hosts: list[str]
    sysctls: dict[str, str]
    directory: Path


class EndpointInfo(msgspec.Struct, frozen=True):
    """One network of a running container."""

    network: str
    network_id: str
    endpoint_id: str
    addresses: tuple[str, ...]
    mac: str
    interface: str


class SandboxResult(msgspec.Struct, frozen=True):
    """A sandbox that is ready.

    Attributes:
        path: for setns(2); ``None``: the host's own namespace.
        endpoints: in the order of the interfaces.
        ports: ``80/tcp`` to what it is published on, as the API has it.
    """

    path: Path | None
    endpoints: list[EndpointInfo]
    ports: dict[str, list[dict[str, str]]]
