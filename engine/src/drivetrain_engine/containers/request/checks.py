"""Checks of ``HostConfig`` but for its resources, modes, mounts and ports."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from drivetrain.errors import InvalidArgument, NotSupported
from drivetrain_engine.containers.request.hostconfig import HostConfig, RestartPolicy
from drivetrain_engine.containers.settings import ContainerSettings
from drivetrain_engine.containers.spec.capabilities import effective_capabilities
from drivetrain_engine.containers.spec.security import parse_security

_POLICIES = ("", "no", "always", "on-failure", "unless-stopped")
_RULE = re.compile(r"[acb] (\d+|\*):(\d+|\*) [rwm]{1,3}")
_INITS = ("/usr/bin/docker-init", "/usr/bin/tini-static", "/usr/libexec/docker/docker-init",
          "/usr/bin/catatonit", "/usr/libexec/podman/catatonit")  # fmt: skip


def check_restart_policy(policy: RestartPolicy, auto_remove: bool) -> None:
    """Check a policy.

    Raises:
        InvalidArgument: in Docker's words.
    """
    if policy.name not in _POLICIES:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always', "
            "'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidArgument(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if auto_remove and policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def find_init(settings: ContainerSettings) -> str:
    """Return the path of the init that ``--init`` runs.

    Raises:
        NotSupported: none is installed.
    """
    for path in filter(None, (settings.init_path, *_INITS)):
        if Path(path).is_file():
            return path
    raise NotSupported(
        "--init needs an init program: install tini (apt-get install tini) or name one with the "
        "daemon's --init-path"
    )


def check_host(host: HostConfig, settings: ContainerSettings) -> None:
    """Fill in runtime and restart policy, and check them and the rest.

    Raises:
        InvalidArgument: in Docker's words.
        NotSupported: the host lacks what is asked for.
    """
    host.restart_policy.name = host.restart_policy.name or "no"
    check_restart_policy(host.restart_policy, host.auto_remove)
    host.runtime = host.runtime or settings.default_runtime
    if host.runtime not in settings.runtimes:
        raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}")
    effective_capabilities(host.cap_add, host.cap_drop, privileged=host.privileged)
    parse_security(host.security_opt)
    if host.init is None and settings.init:
        host.init = True
    if host.init:
        find_init(settings)
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(
            f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    if host.device_requests:
        raise NotSupported(
            "could not select a device driver for --gpus: pass the devices with --device"
        )
    for rule in host.device_cgroup_rules or ():
        if not _RULE.fullmatch(rule):
            raise InvalidArgument(f"invalid device cgroup rule format: '{rule}'")
    _check_names(host)
    _check_sysctls(host)


def _check_names(host: HostConfig) -> None:
    for entry in host.extra_hosts or ():
        name, separator, address = entry.partition(":")
        if not (name and separator and address):
            raise InvalidArgument(f'bad format for add-host: "{entry}"')
        bare = address.strip("[]")
        if bare != "host-gateway":
            try:
                ipaddress.ip_address(bare)
            except ValueError:
                raise InvalidArgument(f'invalid IP address in add-host: "{address}"') from None
    for server in host.dns or ():
        try:
            ipaddress.ip_address(server)
        except ValueError:
            raise InvalidArgument(f"invalid IP address: {server}") from None
    for link in host.links or ():
        if not link.strip(":") or link.count(":") > 1:
            raise InvalidArgument(f"invalid format for links: {link}")


def _check_sysctls(host: HostConfig) -> None:
    for key in host.sysctls or ():
        name = key.replace("/", ".")
        network = name.startswith("net.")
        if not network and not re.match(
            r"(kernel\.(msg(max|mnb|mni)|sem|shm.*|domainname)|fs\.mqueue\..*)$", name
        ):
            raise InvalidArgument(f"sysctl '{key}' is not allowed: it belongs to the whole host")
        if network and host.network_mode == "host":
            raise InvalidArgument(f"sysctl '{key}' not allowed in host network namespace")
        if not network and host.ipc_mode == "host":
            raise InvalidArgument(f"sysctl '{key}' not allowed in host ipc namespace")
