"""Whose namespaces a container uses: network, IPC, PID, UTS, cgroup and user."""

from __future__ import annotations

from drivetrain.errors import InvalidArgument, NotSupported
from drivetrain_engine.containers.request.config import Config
from drivetrain_engine.containers.request.hostconfig import HostConfig
from drivetrain_engine.containers.settings import ContainerSettings
from drivetrain_engine.containers.spec.cgroups import host_cgroups


def container_mode(mode: str) -> str:
    """Return the container that ``container:x`` names; empty for other modes."""
    return mode.partition(":")[2] if mode.startswith("container:") else ""


def is_named_network(mode: str) -> bool:
    """Tell whether a network mode is the name of a network, host and none included."""
    return not mode.startswith("container:")


def fill_modes(config: Config, host: HostConfig, settings: ContainerSettings) -> None:
    """Fill in the defaults and check what is given.

    Raises:
        InvalidArgument: an unknown mode.
        NotSupported: user namespaces.
    """
    if host.network_mode in ("", "default"):
        host.network_mode = "bridge"
    if config.network_disabled:
        host.network_mode = "none"
    if not host.ipc_mode:
        host.ipc_mode = settings.ipc_mode
    if not host.cgroupns_mode:
        default = "private" if host_cgroups().version == 2 else "host"
        host.cgroupns_mode = settings.cgroupns_mode or default
        if host.privileged and host_cgroups().version == 1:
            host.cgroupns_mode = "host"
    if host.network_mode.startswith("container:") and not container_mode(host.network_mode):
        raise InvalidArgument("Invalid network mode: invalid container format container:<name|id>")
    checks = (
        ("IPC", host.ipc_mode, ("private", "shareable", "host", "none"), True),
        ("PID", host.pid_mode, ("", "host"), True),
        ("UTS", host.uts_mode, ("", "host"), False),
        ("cgroup namespace", host.cgroupns_mode, ("private", "host"), False),
        ("user namespace", host.userns_mode, ("", "host"), False),
    )
    for name, mode, known, joins in checks:
        if mode not in known and not (joins and container_mode(mode)):
            raise InvalidArgument(f"invalid {name} mode: {mode}")
    if host.isolation not in ("", "default"):
        raise NotSupported(f"invalid isolation '{host.isolation}': only default is possible here")


def check_network_conflicts(config: Config, host: HostConfig) -> None:
    """Refuse options that have no place in another container's network.

    Raises:
        InvalidArgument: in Docker's words.
    """
    if host.uts_mode == "host" and config.hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if host.links and host.network_mode == "host":
        raise InvalidArgument(
            "conflicting options: host type networking can't be used with links. This would "
            "result in undefined behavior"
        )
    if not container_mode(host.network_mode):
        return
    conflicts = (
        (config.hostname, "hostname and the network mode"),
        (host.links, "container type network can't be used with links. This would result in "
                     "undefined behavior"),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (config.mac_address, "mac-address and the network mode"),
        (host.port_bindings or host.publish_all_ports,
         "port publishing and the container type network mode"),
    )  # fmt: skip
    for given, text in conflicts:
        if given:
            raise InvalidArgument(f"conflicting options: {text}")
