"""From what was asked of networks to what the network service wants to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from drivetrain.errors import FailedPrecondition, InvalidArgument
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.record import Record
from drivetrain_engine.containers.request.hostconfig import HostConfig
from drivetrain_engine.containers.request.modes import container_mode
from drivetrain_engine.containers.request.ports import split_host_port
from drivetrain_engine.networks import Attachment, PortRequest, SandboxRequest

Json = dict[str, Any]

#: Networks that exist on every host; addresses and aliases are for users' own.
_DEFAULTS = ("bridge", "host", "none", "default")


def chosen_networks(host: HostConfig, asked: Mapping[str, Json]) -> dict[str, Json]:
    """Return the networks of a new container, the main one first.

    Args:
        host: its network mode counts too.
        asked: ``NetworkingConfig.EndpointsConfig``.

    Raises:
        InvalidArgument: a combination that Docker refuses.
    """
    mode = host.network_mode
    if container_mode(mode):
        if asked:
            raise InvalidArgument(
                "conflicting options: cannot attach both user-defined and non-user-defined "
                "network-modes"
            )
        return {}
    renamed = {mode if name == "default" else name: value for name, value in asked.items()}
    found = {mode: renamed.pop(mode, {})}
    if renamed and mode in ("host", "none"):
        raise InvalidArgument(
            "conflicting options: cannot attach both user-defined and non-user-defined "
            "network-modes"
        )
    found.update(renamed)
    for name, endpoint in found.items():
        check_endpoint(name, endpoint)
    return found


def check_endpoint(network: str, endpoint: Mapping[str, Any]) -> None:
    """Refuse addresses and aliases on the networks that exist on every host.

    Raises:
        InvalidArgument: in Docker's words.
    """
    ipam = endpoint.get("IPAMConfig") or {}
    if network not in _DEFAULTS:
        return
    if ipam.get("IPv4Address") or ipam.get("IPv6Address"):
        raise InvalidArgument(
            "invalid config for network "
            f"{network}: user specified IP address is supported on user defined networks only"
        )
    if endpoint.get("Aliases"):
        raise InvalidArgument(
            f"invalid config for network {network}: network-scoped aliases are only supported for "
            "user-defined networks"
        )


def attachment(network: str, endpoint: Mapping[str, Any]) -> Attachment:
    """Return what the network service wants to know about one network of a container."""
    ipam = endpoint.get("IPAMConfig") or {}
    return Attachment(
        network=network,
        aliases=list(endpoint.get("Aliases") or ()),
        ipv4=ipam.get("IPv4Address") or "",
        ipv6=ipam.get("IPv6Address") or "",
        link_local=list(ipam.get("LinkLocalIPs") or ()),
        mac=endpoint.get("MacAddress") or "",
        driver_opts=dict(endpoint.get("DriverOpts") or {}),
        gw_priority=int(endpoint.get("GwPriority") or 0),
        links=list(endpoint.get("Links") or ()),
    )


def port_requests(record: Record) -> list[PortRequest]:
    """Return the ports to publish; with ``-P`` every exposed one that was not bound."""
    found = []
    bindings = record.host.port_bindings or {}
    for key, places in bindings.items():
        number, _, protocol = key.partition("/")
        for place in places or ():
            first, last = split_host_port(place.get("HostPort") or "")
            found.append(
                PortRequest(
                    protocol=protocol,
                    container_port=int(number),
                    host_ip=place.get("HostIp") or "",
                    host_port=first,
                    host_port_end=last,
                )
            )
    if record.host.publish_all_ports:
        for key in record.config.exposed_ports or ():
            if key not in bindings:
                number, _, protocol = key.partition("/")
                found.append(PortRequest(protocol=protocol, container_port=int(number)))
    return found


def sandbox_request(
    record: Record, directory: Path, hosts: list[str] | None = None
) -> SandboxRequest:
    """Return what the network service needs to start a container's sandbox.

    Args:
        record: the container.
        directory: where ``hosts``, ``resolv.conf`` and ``hostname`` are written.
        hosts: further ``name:address`` entries, such as those of links.
    """
    host = record.host
    network_sysctls = {
        key.replace("/", "."): value
        for key, value in (host.sysctls or {}).items()
        if key.startswith(("net.", "net/"))
    }
    return SandboxRequest(
        container_id=record.id,
        name=record.name,
        hostname=record.config.hostname,
        domainname=record.config.domainname,
        attachments=[
            attachment(name, _with_links(record, name, asked))
            for name, asked in record.networks.items()
        ],
        ports=port_requests(record),
        dns=list(host.dns or ()),
        dns_search=list(host.dns_search or ()),
        dns_options=list(host.dns_options or ()),
        extra_hosts=[*(host.extra_hosts or ()), *(hosts or ())],
        sysctls=network_sysctls,
        directory=directory,
    )


def _with_links(record: Record, network: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the container's links to its main network when that is a user's."""
    if network != record.host.network_mode or network in _DEFAULTS or asked.get("Links"):
        return asked
    return {**asked, "Links": list(record.host.links or ())}


def links(
    record: Record, find: Callable[[str], Container], addresses: Callable[[str], str]
) -> tuple[list[str], list[str]]:
    """Return the hosts entries and variables that ``--link`` of the default bridge gives.

    Args:
        record: of the container that has links.
        find: returns the container of a reference.
        addresses: returns a container's address on the default bridge, or nothing.

    Raises:
        FailedPrecondition: the other one does not run.
    """
    hosts: list[str] = []
    variables: list[str] = []
    if record.host.network_mode not in _DEFAULTS:
        return [], []  # users' networks resolve the other name of a link by DNS
    for link in record.host.links or ():
        reference, _, alias = link.partition(":")
        other = find(reference).record
        alias = (alias or reference).rpartition("/")[2]
        address = addresses(other.id)
        if not other.state.running or not address:
            raise FailedPrecondition(
                f"Cannot link to a non running container: /{other.name} AS /{record.name}/{alias}"
            )
        names = dict.fromkeys((alias, other.config.hostname, other.name))
        hosts += [f"{name}:{address}" for name in names if name]
        prefix = alias.replace("-", "_").upper()
        variables.append(f"{prefix}_NAME=/{record.name}/{alias}")
        for port in other.config.exposed_ports or ():
            number, _, protocol = port.partition("/")
            place = f"{prefix}_PORT_{number}_{protocol.upper()}"
            variables.append(f"{place}={protocol}://{address}:{number}")
            variables.append(f"{place}_ADDR={address}")
            variables.append(f"{place}_PORT={number}")
            variables.append(f"{place}_PROTO={protocol}")
    return hosts, variables
