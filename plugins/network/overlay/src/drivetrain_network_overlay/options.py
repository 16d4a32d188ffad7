"""The options of the driver, of its networks, and where they say that things are."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from drivetrain.errors import InvalidArgument, NotFound
from drivetrain.host.netlink import Netlink
from drivetrain.network import Address, Network
from drivetrain.options import Option, Options
from drivetrain_network_overlay.etcd import Access
from drivetrain_network_overlay.membership import Terms

PREFIX = "com.docker.network.driver.overlay."
NUMBERS = f"{PREFIX}vxlanid_list"
MULTICAST = f"{PREFIX}multicast"
MTU = "com.docker.network.driver.mtu"

DRIVER_OPTIONS = (
    Option("cluster-store", help="etcd://host:port[,host:port…][/path]"),
    Option("cluster-advertise", help="this host's address or interface, with or without :port"),
    Option("data-path-addr", help="address or interface for VXLAN; as cluster-advertise"),
    Option("data-path-port", "integer", default=4789, help="UDP port; encrypted: the next one"),
    Option("kv.cacertfile", help="certificates that etcd's must have"),
    Option("kv.certfile", help="our certificate for etcd"),
    Option("kv.keyfile", help="its key"),
    Option("kv.path", default="drivetrain", help="of the keys, when the URL has none"),
    Option("kv.user", help="for etcd"),
    Option("kv.password", secret=True, help="of that user"),
    Option("kv.timeout", "duration", default=5.0, help="that an endpoint of etcd may take"),
    Option("discovery.ttl", "duration", default=30.0, help="after which a dead host is forgotten"),
    Option("addresses.ttl", "duration", default=86400.0, help="after which its addresses are free"),
    Option("keys.rotation", "duration", default=43200.0, help="life of a key for encryption"),
    Option("keys.settle", "duration", default=60.0, help="from a key's announcement to its use"),
)  # fmt: skip

NETWORK_OPTIONS = (
    Option("encrypted", "boolean", default=False, help="IPsec between hosts (ESP, AES-GCM)"),
    Option(MTU, "integer", default=0, help="in bytes; 0: what fits through the tunnel"),
    Option(NUMBERS, "list", help="VXLAN network identifiers to choose from"),
    Option(MULTICAST, "boolean", default=False, help="multicast and broadcast reach other hosts"),
    Option("com.docker.network.enable_ipv4", "boolean", help="accepted; see --ipv4"),
    Option("com.docker.network.enable_ipv6", "boolean", help="accepted; see --ipv6"),
)

#: Bytes around a packet: addresses, UDP, VXLAN and the Ethernet head inside; with ESP besides its
#: head (8), the nonce (8), the checksum (16), and at most 4 that fill up and tell the length.
_TUNNEL, _IPV6, _ESP = 50, 20, 34


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """The options of the driver, ready to use.

    Attributes:
        access: to etcd.
        path: of the cluster's keys.
        rotation, settle: seconds, see ``encryption``.
    """

    access: Access
    path: str
    advertise: str
    data_path: str
    port: int
    terms: Terms
    rotation: float
    settle: float

    def local_address(self) -> Address:
        """Return this host's address on the data plane.

        Raises:
            InvalidArgument: there is no such address or interface.
        """
        for text in (self.data_path, self.advertise):
            if text:
                return _own_address(text)
        parts = urlsplit(self.access.endpoints[0])
        host, port = str(parts.hostname), parts.port or 2379
        try:
            family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind) as probe:
                probe.connect(place)
                return ip_address(probe.getsockname()[0])
        except OSError as error:
            raise NotFound(
                f"no way to etcd at {host}: {error}; give --data-path-addr, the address of this "
                "host that the others reach"
            ) from error


def cluster_settings(options: Options) -> ClusterSettings | None:
    """Read the driver's options; ``None`` when there is no cluster.

    Raises:
        InvalidArgument: names the option.
    """
    url = options.string("cluster-store")
    if not url:
        return None
    parts = urlsplit(url)
    hosts = [each for each in parts.netloc.split(",") if each]
    if parts.scheme not in ("etcd", "etcds") or not hosts:
        raise InvalidArgument(
            f"cluster-store {url!r}: etcd://host:port[,host:port…][/path] is needed"
        )
    ca, certificate, key = (options.string(f"kv.{n}file") for n in ("cacert", "cert", "key"))
    scheme = "https" if ca or certificate or parts.scheme == "etcds" else "http"
    port = options.integer("data-path-port")
    if not 1024 <= port <= 65534:
        raise InvalidArgument(f"data-path-port {port}: 1024 to 65534 is needed")
    presence, addresses = options.number("discovery.ttl"), options.number("addresses.ttl")
    if presence < 1 or addresses < 2 * presence:
        raise InvalidArgument(
            f"discovery.ttl {presence:g}s and addresses.ttl {addresses:g}s: at least a second, and "
            "addresses have to last twice as long as presence"
        )
    return ClusterSettings(
        access=Access(
            tuple(f"{scheme}://{h if _has_port(h) else f'{h}:2379'}" for h in hosts),
            ca, certificate, key, options.string("kv.user"), options.string("kv.password"),
            options.number("kv.timeout"),
        ),
        path="/" + (parts.path.strip("/") or options.string("kv.path").strip("/")),
        advertise=_without_port(options.string("cluster-advertise")),
        data_path=_without_port(options.string("data-path-addr")),
        port=port,
        terms=Terms(int(presence), int(addresses)),
        rotation=options.number("keys.rotation"),
        settle=options.number("keys.settle"),
    )  # fmt: skip


def numbers(network: Network) -> tuple[int, ...]:
    """Return the identifiers that a network may have; empty: any.

    Raises:
        InvalidArgument: one is none.
    """
    found = []
    for text in network.options.strings(NUMBERS):
        if not text.isdigit() or not 1 <= int(text) < 1 << 24:
            raise InvalidArgument(f"option {NUMBERS}={text}: 1 to 16777215 is needed")
        found.append(int(text))
    return tuple(found)


def mtu(network: Network, local: Address) -> int:
    """Return the size of the packets of a network, in bytes.

    Raises:
        InvalidArgument: the user's wish cannot be.
    """
    wanted = network.options.integer(MTU)
    if wanted:
        if not 68 <= wanted <= 65535:
            raise InvalidArgument(f"option {MTU}={wanted}: 68 to 65535 is needed")
        return wanted
    return link_mtu(local) - overhead(network.options.boolean("encrypted"), local)


def overhead(encrypted: bool, local: Address) -> int:
    """Return the bytes that the way between hosts adds to a packet."""
    return _TUNNEL + (_IPV6 if local.version == 6 else 0) + (_ESP if encrypted else 0)


def link_mtu(local: Address) -> int:
    """Return what the link with this host's address can carry; 1500 when there is none."""
    with Netlink() as netlink:
        index = next((i for i, address in netlink.addresses() if address.ip == local), 0)
        return next((link.mtu for link in netlink.links() if link.index == index), 1500)


def _own_address(text: str) -> Address:
    with Netlink() as netlink:
        own = [(index, address.ip) for index, address in netlink.addresses()]
        link = None
        try:
            wanted = ip_address(text)
        except ValueError:
            link = netlink.link(text)
            found = [ip for index, ip in own if link is not None and index == link.index]
            found = [ip for ip in found if not ip.is_link_local]
        else:
            found = [ip for _, ip in own if ip == wanted]
    if not found:
        raise InvalidArgument(
            f"this host has no address or interface {text}: give one of its own as data-path-addr"
        )
    return sorted(found, key=lambda ip: ip.version)[0]


def _has_port(text: str) -> bool:
    return text.rpartition(":")[2].isdigit() and not text.endswith("]")


def _without_port(text: str) -> str:
    """Return an address or interface without the port that docker's users write behind it."""
    if text.count(":") > 1 and not text.startswith("["):
        return text
    return (text.rpartition(":")[0] if _has_port(text) and ":" in text else text).strip("[]")
