"""Joining containers to networks: links by the driver, and what the engine sets on them."""

from __future__ import annotations

import contextlib
import logging
import re
from ipaddress import ip_address, ip_interface
from pathlib import Path

from drivetrain.errors import EngineError, FailedPrecondition, InvalidArgument
from drivetrain.host import namespaces
from drivetrain.host.netlink import Netlink
from drivetrain.network import Endpoint, Interface, Link, Sandbox
from drivetrain.options import parse_options
from drivetrain_engine.networks.inventory import Inventory, Pair
from drivetrain_engine.networks.names import Directory
from drivetrain_engine.networks.records import (
    INTERFACE_NAME,
    SYSCTLS,
    EndpointRecord,
    NetworkRecord,
    SandboxRecord,
)
from drivetrain_engine.networks.requests import Attachment
from drivetrain_engine.state import new_id

log = logging.getLogger("engine.networks")

_PREFIX = "com.docker.network.container_iface_prefix"


class Joining:
    """Endpoints: made, joined, left and forgotten.

    Args:
        inventory: of networks and endpoints.
        directory: knows names.
    """

    def __init__(self, inventory: Inventory, directory: Directory) -> None:
        self._inventory = inventory
        self._directory = directory

    def new(
        self, container_id: str, name: str, net: NetworkRecord, attachment: Attachment
    ) -> EndpointRecord:
        """Make the record of an endpoint.

        Raises:
            InvalidArgument: of options and addresses.
        """
        if net.config_only:
            raise FailedPrecondition(
                f"network {net.name} is a configuration only: make one with --config-from"
            )
        wanted = [text for text in (attachment.ipv4, attachment.ipv6) if text]
        self._inventory.addresses.check(net, wanted)
        endpoint = EndpointRecord(
            id=new_id(),
            network=net.id,
            container=container_id,
            name=name,
            aliases=list(attachment.aliases),
            links=list(attachment.links),
            wanted=wanted,
            wanted_mac=attachment.mac,
            driver_opts=dict(attachment.driver_opts),
            gw_priority=attachment.gw_priority,
            link_local=[str(_link_local(text)) for text in attachment.link_local],
        )
        sysctls_of(endpoint)
        _interface_name(endpoint)
        schema = self._inventory.drivers.of(net).endpoint_options()
        parse_options(f"network driver {net.driver}", schema, endpoint.options_for_driver())
        self._inventory.put(endpoint)
        return endpoint

    def view(self, endpoint: EndpointRecord, net: NetworkRecord) -> Endpoint:
        """Return an endpoint as the contract has it."""
        names = self._directory.names_of(endpoint) if self._directory.has_names(net) else []
        return self._inventory.drivers.endpoint(endpoint, names)

    def join(
        self, sandbox: SandboxRecord, inside: Netlink, endpoint: EndpointRecord,
        net: NetworkRecord, others: list[Pair],
    ) -> None:  # fmt: skip
        """Join an endpoint: its ``gateway_for`` is decided already.

        Args:
            sandbox: the container's.
            inside: a socket in it.
            endpoint: which one.
            net: the network.
            others: the container's endpoints, for the interface's number.
        """
        drivers = self._inventory.drivers
        if net.subnets:
            self._inventory.addresses.take(endpoint, net)
        endpoint.interface = _interface(endpoint, net, others)
        endpoint.joined = True
        # The record first: what a crash leaves behind is found by it.
        self._inventory.put(endpoint)
        network, view, call = drivers.network(net), self.view(endpoint, net), drivers.of(net)
        call.endpoint_create(network, view)
        link = call.endpoint_join(network, view, Sandbox(Path(sandbox.path)))
        if link.mac:
            _keep_mac(endpoint, net, link.mac)
        if link.addresses:
            endpoint.addresses = [str(address) for address in link.addresses]
            view = self.view(endpoint, net)
        if link.name:
            _configure(sandbox, inside, view, link, endpoint)
        endpoint.gateways = [str(gateway) for gateway in link.gateways]
        endpoint.on_link = link.default_route_on_link
        self._inventory.put(endpoint)
        self._inventory.emit("connect", net, sandbox.container)

    def rename(self, endpoint: EndpointRecord, net: NetworkRecord) -> None:
        """Tell the driver the new names of a joined endpoint."""
        drivers = self._inventory.drivers
        try:
            drivers.of(net).endpoint_rename(drivers.network(net), self.view(endpoint, net))
        except EngineError as error:
            log.warning("a new name is not told: %s", error)

    def leave(self, endpoint: EndpointRecord) -> None:
        """Undo the join in the driver, and give the addresses back; ports are gone by then."""
        net = self._inventory.networks.get(endpoint.network)
        try:
            if net is not None:
                drivers = self._inventory.drivers
                drivers.of(net).endpoint_leave(drivers.network(net), self.view(endpoint, net))
        finally:
            if net is not None:
                self._inventory.addresses.give_back(endpoint, net)
            endpoint.gateways = []
            endpoint.gateway_for = []
            endpoint.joined = False
            self._inventory.put(endpoint)

    def forget(self, endpoint: EndpointRecord) -> None:
        """Forget an endpoint that is not joined, with the addresses that it kept."""
        net = self._inventory.networks.get(endpoint.network)
        if net is not None:
            drivers = self._inventory.drivers
            with contextlib.suppress(EngineError):
                drivers.of(net).endpoint_delete(drivers.network(net), self.view(endpoint, net))
            endpoint.wanted = []
            self._inventory.addresses.give_back(endpoint, net)
        self._inventory.endpoints.delete(endpoint.id)


def _keep_mac(endpoint: EndpointRecord, net: NetworkRecord, mac: str) -> None:
    """Note the hardware address that a link has whatever the user wants."""
    if endpoint.wanted_mac and endpoint.wanted_mac.lower() != mac:
        raise InvalidArgument(
            f"network {net.name}: its links have the hardware address {mac} of their parent: "
            f"leave out --mac-address {endpoint.wanted_mac}"
        )
    endpoint.mac = mac


def _link_local(text: str) -> Interface:
    try:
        address = ip_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid link-local address {text!r}") from None
    return ip_interface(f"{address}/{16 if address.version == 4 else 64}")


def sysctls_of(endpoint: EndpointRecord) -> dict[str, str]:
    """Return the sysctls that the user gave for an endpoint; with the word IFNAME in them.

    Raises:
        InvalidArgument: one is not ``net.X.Y.IFNAME.Z=value``.
    """
    found: dict[str, str] = {}
    for entry in endpoint.driver_opts.get(SYSCTLS, "").split(","):
        if not entry:
            continue
        name, equals, value = entry.partition("=")
        # In any case of letters: docker's client makes them small within --network.
        name = re.sub(r"(?i)\bifname\b", "IFNAME", name.strip().replace("/", "."))
        if not equals or not name.startswith("net.") or "IFNAME" not in name.split("."):
            raise InvalidArgument(
                f"invalid endpoint sysctl {entry!r}: net.ipv4.conf.IFNAME.log_martians=1 is the "
                "form, with the word IFNAME"
            )
        found[name] = value
    return found


def _interface_name(endpoint: EndpointRecord) -> str:
    name = endpoint.driver_opts.get(INTERFACE_NAME, "")
    if len(name) > 15 or "/" in name or ":" in name or any(c.isspace() for c in name):
        raise InvalidArgument(f"option {INTERFACE_NAME}={name!r}: 1 to 15 characters without / : ")
    return name


def _interface(endpoint: EndpointRecord, net: NetworkRecord, others: list[Pair]) -> str:
    """Return the name of an endpoint's interface: the user's, or the first free number."""
    used = {other.interface for other, _ in others if other.joined and other.id != endpoint.id}
    used |= {other.driver_opts.get(INTERFACE_NAME, "") for other, _ in others}
    if wanted := endpoint.driver_opts.get(INTERFACE_NAME):
        if any(o.interface == wanted for o, _ in others if o.joined and o.id != endpoint.id):
            raise InvalidArgument(f"the container has an interface {wanted} already")
        return wanted
    prefix = net.options.get(_PREFIX) or "eth"
    return next(name for name in (f"{prefix}{i}" for i in range(100_000)) if name not in used)


def _configure(
    sandbox: SandboxRecord, inside: Netlink, view: Endpoint, link: Link, endpoint: EndpointRecord
) -> None:
    if not link.in_sandbox:
        with Netlink() as host, open(sandbox.path) as handle:
            host.set_link(link.name, attributes={"IFLA_NET_NS_FD": handle.fileno()})
        if link.name != view.interface:
            inside.set_link(link.name, attributes={"IFLA_IFNAME": view.interface})
    attributes: dict[str, object] = {}
    if link.mtu:
        attributes["IFLA_MTU"] = link.mtu
    if view.mac and not link.in_sandbox:
        attributes["IFLA_ADDRESS"] = view.mac
    if attributes:
        inside.set_link(view.interface, attributes=attributes)
    # Before the link is up: some values only count then.
    set_sysctls(
        Path(sandbox.path),
        {
            name.replace("IFNAME", view.interface): value
            for name, value in {**link.sysctls, **sysctls_of(endpoint)}.items()
        },
    )
    versions = view.gateway_for
    inside.configure(
        view.interface,
        addresses=[*view.addresses, *(ip_interface(text) for text in endpoint.link_local)],
        gateways=[gateway for gateway in link.gateways if gateway.version in versions],
        routes=[(route.destination, route.gateway) for route in link.routes],
        default_on_link=link.default_route_on_link and bool(versions or not link.gateways),
    )


def set_sysctls(sandbox: Path, values: dict[str, str]) -> None:
    """Set sysctls in a namespace; names with dots.

    Raises:
        InvalidArgument: the kernel refuses one, which is named.
    """
    if not values:
        return

    def work() -> None:
        for name, value in values.items():
            try:
                Path("/proc/sys", *name.split(".")).write_text(value)
            except OSError as error:
                raise InvalidArgument(
                    f"cannot set the sysctl {name}={value}: {error.strerror}"
                ) from error

    namespaces.run_in(sandbox, work)
