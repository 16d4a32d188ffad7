"""From the daemon's settings to those of the services."""

from __future__ import annotations

import ipaddress
import os
import shlex
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from drivetrain.errors import InvalidArgument
from drivetrain_engine.containers.settings import ContainerSettings
from drivetrain_engine.content import RegistrySettings
from drivetrain_engine.daemon.settings import Settings
from drivetrain_engine.networks import NetworkSettings

#: Runtimes that are looked for, the default first.
KNOWN_RUNTIMES = ("crun", "runc")


def registry_settings(settings: Settings) -> RegistrySettings:
    """Return what pulls and pushes need to know."""
    return RegistrySettings(
        mirrors=settings.registry_mirrors,
        insecure=settings.insecure_registries,
        max_downloads=settings.max_concurrent_downloads,
        max_uploads=settings.max_concurrent_uploads,
        attempts=settings.max_download_attempts,
        certificates=(Path(settings.config_file).parent / "certs.d", Path("/etc/docker/certs.d")),
    )


def network_settings(settings: Settings) -> NetworkSettings:
    """Return what the networks service needs to know."""
    return NetworkSettings(
        bip=settings.bip,
        bip6=settings.bip6,
        fixed_cidr=settings.fixed_cidr,
        fixed_cidr_v6=settings.fixed_cidr_v6,
        default_gateway=settings.default_gateway,
        default_gateway_v6=settings.default_gateway_v6,
        host_address=settings.ip,
        mtu=settings.mtu,
        dns=list(settings.dns),
        dns_search=list(settings.dns_search),
        dns_options=list(settings.dns_opts),
        default_address_pools=[
            (str(ipaddress.ip_network(pool.base)), pool.size)
            for pool in settings.default_address_pools
        ],
        ipv6=settings.ipv6,
        icc=settings.icc,
        ip_masq=settings.ip_masq,
        cluster=settings.cluster_options(),
    )


def container_settings(settings: Settings, runtimes: Mapping[str, str]) -> ContainerSettings:
    """Return what the containers service needs to know."""
    defaults = ContainerSettings()
    return ContainerSettings(
        default_runtime=settings.default_runtime or default_runtime(runtimes),
        runtimes=dict(runtimes),
        log_driver=settings.log_driver,
        log_opts=dict(settings.log_opts),
        log_cache_driver=settings.log_cache_driver,
        default_ulimits={
            name: (limit.soft, limit.hard) for name, limit in settings.default_ulimits.items()
        },
        shm_size=settings.default_shm_size,
        ipc_mode=settings.default_ipc_mode,
        cgroupns_mode=settings.default_cgroupns_mode,
        cgroup_parent=settings.cgroup_parent or defaults.cgroup_parent,
        seccomp_profile=settings.seccomp_profile,
        no_new_privileges=settings.no_new_privileges,
        init=settings.init,
        init_path=settings.init_path,
        host=socket.gethostname(),
    )


def find_runtimes(settings: Settings, directory: Path) -> dict[str, str]:
    """Return the path of every OCI runtime by name.

    Args:
        settings: of the daemon.
        directory: for the scripts that stand for runtimes with arguments of their own.

    Raises:
        InvalidArgument: a runtime cannot be executed, or the default one does not exist.
    """
    found: dict[str, str] = {}
    for name in KNOWN_RUNTIMES:
        path = shutil.which(name)
        if path is not None:
            found[name] = path
    for name, runtime in settings.runtimes.items():
        path = shutil.which(str(runtime["path"]))
        if path is None or not os.access(path, os.X_OK):
            raise InvalidArgument(f"runtime {name}: {runtime['path']} cannot be executed")
        arguments = [str(each) for each in runtime.get("runtimeArgs") or ()]
        found[name] = _script(directory, name, [path, *arguments]) if arguments else path
    if settings.default_runtime and settings.default_runtime not in found:
        raise InvalidArgument(
            f"specified default runtime {settings.default_runtime} does not exist "
            f"(known: {', '.join(sorted(found)) or 'none'})"
        )
    return found


def _script(directory: Path, name: str, command: list[str]) -> str:
    """Write a script that runs a command with further arguments; return its path."""
    if "/" in name:
        raise InvalidArgument(f"runtime {name}: a name has no slash")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / name
    fresh = path.with_name(f".{name}.new")
    fresh.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', encoding="utf-8")
    fresh.chmod(0o700)
    fresh.rename(path)
    return str(path)


def default_runtime(runtimes: Mapping[str, str]) -> str:
    """Return the name of the runtime for containers that ask for none."""
    return next((name for name in KNOWN_RUNTIMES if name in runtimes), "")
