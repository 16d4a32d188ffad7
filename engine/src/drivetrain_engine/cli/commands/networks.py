"""``engine network``."""

from __future__ import annotations

import ipaddress
from typing import Any

import click

from drivetrain_engine.cli import values
from drivetrain_engine.cli.commands.lifecycle import each
from drivetrain_engine.cli.commands.shared import confirm, inspect_objects
from drivetrain_engine.cli.errors import UsageError
from drivetrain_engine.cli.flags import GoGroup, flag, many, option
from drivetrain_engine.cli.output import Row, echo, listing, mapping_text, short_id
from drivetrain_engine.cli.session import api


@click.group("network", cls=GoGroup)
def network_command() -> None:
    """Manage networks."""


@network_command.command("create")
@flag("--attachable", help="Accepted; all networks are")
@many("--aux-address", help="An address to keep free (name=address)")
@option("--config-from", default="", help="Network to copy the configuration from")
@flag("--config-only", help="Make a configuration only")
@option("-d", "--driver", default="bridge", help="Driver (bridge)")
@many("--gateway", help="Gateway of a subnet")
@flag("--ingress", help="Accepted for docker's sake")
@flag("--internal", help="No way in or out but among its containers")
@many("--ip-range", help="Range of a subnet that containers get addresses from")
@option("--ipam-driver", default="default", help="Address management")
@many("--ipam-opt", help="Option of it (key=value)")
@option("--ipv4", type=bool, default=None, help="Enable IPv4 (true)")
@flag("--ipv6", help="Enable IPv6")
@many("--label", help="Label (key=value)")
@many("-o", "--opt", help="Option of the driver (key=value)")
@option("--scope", default="", help="Accepted for docker's sake")
@many("--subnet", help="Subnet (address/length)")
@click.argument("name")
def create(name: str, **flags: Any) -> None:
    """Create a network."""
    body: dict[str, Any] = {
        "Name": name,
        "Driver": flags["driver"],
        "Scope": flags["scope"],
        "Internal": flags["internal"],
        "Attachable": flags["attachable"],
        "Ingress": flags["ingress"],
        "ConfigOnly": flags["config_only"],
        "IPAM": {
            "Driver": flags["ipam_driver"],
            "Options": values.pairs(flags["ipam_opt"]),
            "Config": ipam_config(
                flags["subnet"], flags["ip_range"], flags["gateway"], flags["aux_address"]
            ),
        },
        "Options": values.pairs(flags["opt"]),
        "Labels": values.pairs(flags["label"]),
    }
    if flags["ipv4"] is not None:
        body["EnableIPv4"] = flags["ipv4"]
    if flags["ipv6"]:
        body["EnableIPv6"] = True
    if flags["config_from"]:
        body["ConfigFrom"] = {"Network": flags["config_from"]}
    answer = api().post("/networks/create", body)
    if answer.get("Warning"):
        click.echo(f"WARNING: {answer['Warning']}", err=True)
    echo(answer["Id"])


def ipam_config(
    subnets: tuple[str, ...],
    ranges: tuple[str, ...],
    gateways: tuple[str, ...],
    auxiliary: tuple[str, ...],
) -> list[dict[str, Any]]:
    """Return the Config of IPAM: each range, gateway and address goes to the subnet around it.

    Raises:
        UsageError: an address that belongs to no subnet, or to one that has its own already.
    """
    configs: list[dict[str, Any]] = []
    prefixes: list[Any] = []
    for text in subnets:
        prefix = _parsed(text, "--subnet")
        if any(prefix.version == p.version and prefix.overlaps(p) for p in prefixes):
            raise UsageError(f"--subnet {text} overlaps another --subnet")
        prefixes.append(prefix)
        configs.append({"Subnet": text})
    if not subnets and (len(ranges) > 1 or len(gateways) > 1):
        raise UsageError("--ip-range and --gateway need a --subnet each")
    if not subnets and (ranges or gateways):
        raise UsageError("--ip-range and --gateway need a --subnet that they belong to")

    def place(text: str, address: str, flag_name: str) -> dict[str, Any]:
        wanted = _parsed(address, flag_name)
        for prefix, config in zip(prefixes, configs, strict=True):
            if wanted.version == prefix.version and wanted.network_address in prefix:
                return config
        raise UsageError(f"no matching subnet for {flag_name} {text}")

    for text in ranges:
        _set_once(place(text, text, "--ip-range"), "IPRange", text)
    for text in gateways:
        _set_once(place(text, text, "--gateway"), "Gateway", text)
    for text in auxiliary:
        name, _, address = text.partition("=")
        config = place(text, address, "--aux-address")
        config.setdefault("AuxiliaryAddresses", {})[name] = address
    return configs


def _parsed(text: str, flag_name: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise UsageError(f"invalid argument {text!r} for {flag_name}: {error}") from error


def _set_once(config: dict[str, Any], key: str, value: str) -> None:
    if key in config:
        raise UsageError(f"cannot configure multiple {key} ({value}) on the same subnet")
    config[key] = value


@network_command.command("ls")
@many("-f", "--filter", help="Show those that match (key=value)")
@option("--format", "form", default="", help="table, json, or a template")
@flag("--no-trunc", help="Do not cut anything")
@flag("-q", "--quiet", help="Show ids only")
def list_networks(filter: tuple[str, ...], form: str, no_trunc: bool, quiet: bool) -> None:
    """List networks."""
    rows = [
        Row(
            ID=one["Id"] if no_trunc else short_id(one["Id"]),
            Name=one["Name"],
            Driver=one["Driver"],
            Scope=one.get("Scope", "local"),
            IPv6="true" if one.get("EnableIPv6") else "false",
            Internal="true" if one.get("Internal") else "false",
            Labels=mapping_text(one.get("Labels")),
            CreatedAt=one.get("Created", ""),
        )
        for one in sorted(
            api().get("/networks", filters=values.filters(filter)), key=lambda one: one["Name"]
        )
    ]
    columns = (("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope"))
    listing(rows, columns, form=form, quiet="ID" if quiet else "")


network_command.add_command(list_networks, "list")


@network_command.command("inspect")
@option("-f", "--format", "form", default="", help="A template, or json")
@flag("-v", "--verbose", help="Accepted for docker's sake")
@click.argument("networks", nargs=-1, required=True)
def inspect(networks: tuple[str, ...], form: str, verbose: bool) -> int:
    """Show all about networks."""
    return inspect_objects(networks, ("network",), form)


@network_command.command("rm")
@flag("-f", "--force", help="Networks that do not exist are fine")
@click.argument("networks", nargs=-1, required=True)
def remove(networks: tuple[str, ...], force: bool) -> int:
    """Remove networks."""
    from drivetrain_engine.cli.errors import ApiError

    client = api()

    def work(name: str) -> None:
        try:
            client.request("DELETE", f"/networks/{name}")
        except ApiError as error:
            if not (force and error.status == 404):
                raise

    return each(networks, work)


network_command.add_command(remove, "remove")


@network_command.command("connect")
@many("--alias", help="A further name on the network")
@many("--driver-opt", help="Option of the driver (key=value)")
@option("--gw-priority", type=int, default=0, help="The highest gives the default gateway")
@option("--ip", default="", help="IPv4 address")
@option("--ip6", default="", help="IPv6 address")
@many("--link", help="Link to another container (name[:alias])")
@many("--link-local-ip", help="A link-local address")
@option("--mac-address", default="", help="Hardware address")
@click.argument("network")
@click.argument("container")
def connect(network: str, container: str, **flags: Any) -> None:
    """Connect a container to a network."""
    addresses = {
        "IPv4Address": flags["ip"],
        "IPv6Address": flags["ip6"],
        "LinkLocalIPs": list(flags["link_local_ip"]),
    }
    settings = {
        "IPAMConfig": {key: value for key, value in addresses.items() if value},
        "Aliases": list(flags["alias"]),
        "Links": list(flags["link"]),
        "DriverOpts": values.pairs(flags["driver_opt"]),
        "GwPriority": flags["gw_priority"],
        "MacAddress": flags["mac_address"],
    }
    body = {
        "Container": container,
        "EndpointConfig": {key: value for key, value in settings.items() if value},
    }
    api().post(f"/networks/{network}/connect", body)


@network_command.command("disconnect")
@flag("-f", "--force", help="Disconnect whatever happens")
@click.argument("network")
@click.argument("container")
def disconnect(network: str, container: str, force: bool) -> None:
    """Disconnect a container from a network."""
    body = {"Container": container, "Force": force}
    api().post(f"/networks/{network}/disconnect", body)


@network_command.command("prune")
@many("--filter", help="Remove those that match (key=value)")
@flag("-f", "--force", help="Do not ask")
def prune(filter: tuple[str, ...], force: bool) -> None:
    """Remove networks that no container uses."""
    confirm("This will remove all custom networks not used by at least one container.", force)
    answer = api().json("POST", "/networks/prune", query={"filters": values.filters(filter)})
    removed = answer.get("NetworksDeleted") or ()
    if removed:
        echo("Deleted Networks:")
        for name in removed:
            echo(name)
        echo()
