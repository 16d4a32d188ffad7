"""What is kept in etcd: where each thing is, and the documents.

====================================  =========================================  ===============
key, below the cluster's prefix       document                                   goes with
====================================  =========================================  ===============
``networks/NETWORK``                  :class:`NetworkDocument`                   nothing
``names/NAME``                        the network's id                           nothing
``vni/NUMBER``                        the network's id                           nothing
``reserved/SUBNET``                   id of a network that is being made         a lease of 60 s
``guard``                             written by every creation of a network     nothing
``hosts/HOST``                        :class:`HostDocument`                      presence lease
``endpoints/NETWORK/ENDPOINT``        :class:`EndpointDocument`                  presence lease
``addresses/NETWORK/HEX``             :class:`Claim`                             address lease
``keys``                              the ring of keys, see ``encryption``       nothing
====================================  =========================================  ===============
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, TypeVar

from drivetrain.network import Address, Prefix


class Keys:
    """The keys of one cluster.

    Args:
        prefix: such as ``/drivetrain``.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.rstrip("/").encode() + b"/v1/"
        self.guard = self._prefix + b"guard"
        self.ring = self._prefix + b"keys"
        self.networks = self._prefix + b"networks/"
        self.hosts = self._prefix + b"hosts/"
        self.numbers = self._prefix + b"vni/"

    def network(self, network: str) -> bytes:
        """Return the key of a network."""
        return self.networks + network.encode()

    def name(self, name: str) -> bytes:
        """Return the key of a network's name."""
        return self._prefix + b"names/" + name.encode()

    def number(self, number: int) -> bytes:
        """Return the key of a VXLAN network identifier."""
        return self.numbers + b"%08d" % number

    def host(self, host: str) -> bytes:
        """Return the key of a host."""
        return self.hosts + host.encode()

    def reservation(self, subnet: Prefix) -> bytes:
        """Return the key that keeps a subnet for a network that is being made."""
        return self._prefix + b"reserved/" + str(subnet).replace("/", "-").encode()

    def endpoints(self, network: str) -> bytes:
        """Return where the endpoints of a network are."""
        return self._prefix + b"endpoints/" + network.encode() + b"/"

    def endpoint(self, network: str, endpoint: str) -> bytes:
        """Return the key of an endpoint."""
        return self.endpoints(network) + endpoint.encode()

    def addresses(self, network: str) -> bytes:
        """Return where the claims on addresses of a network are."""
        return self._prefix + b"addresses/" + network.encode() + b"/"

    def address(self, network: str, address: Address) -> bytes:
        """Return the key of a claim."""
        return self.addresses(network) + address.packed.hex().encode()


def last_part(key: bytes) -> str:
    """Return what is behind the last slash of a key."""
    return key.rpartition(b"/")[2].decode()


def address_of(key: bytes) -> Address:
    """Return the address of a claim's key."""
    return ip_address(bytes.fromhex(last_part(key)))


D = TypeVar("D", bound="Document")


class Document:
    """A document in etcd; fields that a newer version of us added are passed over."""

    def encode(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True).encode()  # type: ignore[call-overload]

    @classmethod
    def decode(cls: type[D], data: bytes) -> D:
        """Read it.

        Raises:
            ValueError: it is none.
        """
        found: dict[str, Any] = json.loads(data)
        known = cls.__dataclass_fields__  # type: ignore[attr-defined]
        try:
            return cls(**{key: value for key, value in found.items() if key in known})
        except TypeError as error:
            raise ValueError(str(error)) from None


@dataclass(frozen=True)
class SubnetDocument(Document):
    """One range of a network; texts as of ``ipaddress``."""

    prefix: str
    gateway: str = ""
    range: str = ""
    auxiliary: dict[str, str] = field(default_factory=dict)

    def network(self) -> Prefix:
        """Return the subnet."""
        return ip_network(self.prefix)


@dataclass(frozen=True)
class NetworkDocument(Document):
    """A network of the cluster.

    Attributes:
        number: its VXLAN network identifier.
        options: the user's strings.
    """

    id: str
    name: str
    number: int = 0
    created: str = ""
    internal: bool = False
    attachable: bool = False
    subnets: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    def ranges(self) -> list[SubnetDocument]:
        """Return its subnets."""
        return [SubnetDocument(**each) for each in self.subnets]


@dataclass(frozen=True)
class HostDocument(Document):
    """A host that is there.

    Attributes:
        address: on the data plane.
        session: what its keys for sending are derived from; changes whenever it makes them anew.
    """

    id: str
    name: str
    address: str
    session: str = ""


@dataclass(frozen=True)
class EndpointDocument(Document):
    """A container on a network.

    Attributes:
        addresses: with prefix lengths.
        host: id of its host.
        tunnel: the host's address on the data plane.
        names: that the container is known by on the network.
    """

    id: str
    network: str
    container: str
    addresses: list[str]
    mac: str
    host: str
    tunnel: str
    names: list[str] = field(default_factory=list)

    def plain_addresses(self) -> list[Address]:
        """Return the addresses without prefix lengths."""
        return [ip_interface(text).ip for text in self.addresses]


@dataclass(frozen=True)
class Claim(Document):
    """An address that is taken.

    Attributes:
        owner: id of the endpoint.
    """

    host: str
    owner: str
