"""What containers find in /etc of their names: written from the records of a sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path

from drivetrain.errors import FailedPrecondition
from drivetrain_engine.networks import files
from drivetrain_engine.networks.inventory import Inventory, Pair
from drivetrain_engine.networks.names import Directory
from drivetrain_engine.networks.records import SandboxRecord


class ContainerFiles:
    """``hosts``, ``resolv.conf`` and ``hostname`` of all containers.

    Args:
        inventory: of networks and endpoints.
        directory: knows which networks have names.
    """

    def __init__(self, inventory: Inventory, directory: Directory) -> None:
        self._inventory = inventory
        self._directory = directory

    def write(self, record: SandboxRecord, pairs: list[Pair]) -> None:
        """Write a container's files anew."""
        directory = Path(record.directory)
        hostname = record.hostname
        full = f"{hostname}.{record.domainname} {hostname}" if record.domainname else hostname
        own = [(str(ip_interface(t).ip), full) for e, _ in pairs for t in e.addresses]
        files.write(directory, "hostname", f"{hostname}\n")
        files.write(directory, "resolv.conf", self._resolv_conf(record, pairs))
        if record.path:
            text = files.hosts(list(self._extra_hosts(record)), own)
        else:
            text = self._host_names(record)
        files.write(directory, "hosts", text)

    def _host_names(self, record: SandboxRecord) -> str:
        try:
            text = Path("/etc/hosts").read_text(errors="replace")
        except OSError:
            text = files.HOSTS
        extra = list(self._extra_hosts(record))
        return text + "".join(f"{address}\t{name}\n" for address, name in extra)

    def _extra_hosts(self, record: SandboxRecord) -> Iterator[tuple[str, str]]:
        for entry in record.extra_hosts:
            name, _, address = entry.partition(":")
            if address == "host-gateway":
                default = next((r for r in self._inventory.networks if r.default), None)
                gateways = [subnet.gateway for subnet in default.subnets] if default else []
                if not gateways:
                    raise FailedPrecondition(
                        "unable to derive the IP value for host-gateway: there is no default bridge"
                    )
                for gateway in gateways:
                    yield gateway, name
            else:
                yield address.strip("[]"), name

    def _resolv_conf(self, record: SandboxRecord, pairs: list[Pair]) -> str:
        host, chosen = files.Resolv(), self._inventory.settings
        inside = bool(record.path) and any(self._directory.has_names(net) for _, net in pairs)
        if inside:
            servers = [files.INSIDE]
        else:
            servers = list(record.dns or chosen.dns)
            if not servers:
                servers = host.reachable() if record.path else host.servers
        search = record.dns_search or chosen.dns_search or host.search
        options = record.dns_options or chosen.dns_options or host.options
        if inside and not any(option.startswith("ndots:") for option in options):
            options = [*options, "ndots:0"]
        return files.resolv_conf(servers, search, options)
