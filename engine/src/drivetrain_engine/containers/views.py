"""Containers in the API's shapes: ``inspect`` and the list."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivetrain.errors import EngineError
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.health import enabled
from drivetrain_engine.containers.mountpoints import shown
from drivetrain_engine.containers.record import Record, parse_timestamp
from drivetrain_engine.containers.request import config as config_shape
from drivetrain_engine.containers.request import hostconfig as host_shape
from drivetrain_engine.containers.request.modes import container_mode
from drivetrain_engine.containers.services import Services

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]

_EMPTY_ENDPOINT: Json = {
    "IPAMConfig": None, "Links": None, "Aliases": None, "MacAddress": "", "DriverOpts": None,
    "GwPriority": 0, "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "",
    "IPPrefixLen": 0, "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0,
    "DNSNames": None,
}  # fmt: skip
_TOP_LEVEL = (
    "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress",
    "IPPrefixLen", "IPv6Gateway", "MacAddress",
)  # fmt: skip


class Views:
    """Shows containers."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def inspect(self, container: Container, size: bool) -> Json:
        """Return ``ContainerInspectResponse``."""
        services, record = self._services, container.record
        directory = services.directory(record.id)
        files = directory
        if reference := container_mode(record.host.network_mode):
            try:
                files = services.directory(services.store.find(reference).id)
            except EngineError:
                pass
        document: Json = {
            "Id": record.id,
            "Created": record.created,
            "Path": record.path,
            "Args": record.args,
            "State": self._state(container),
            "Image": record.image_id,
            "ResolvConfPath": _if_there(files / "resolv.conf"),
            "HostnamePath": _if_there(files / "hostname"),
            "HostsPath": _if_there(files / "hosts"),
            "LogPath": self._log_path(record),
            "LogDrivers": services.logs.shown(container),
            "Name": "/" + record.name,
            "RestartCount": record.restart_count,
            "Driver": record.driver,
            "Platform": "linux",
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": "",
            "ExecIDs": [run.id for run in container.execs.values() if run.running] or None,
            "HostConfig": self._host_config(container),
            "GraphDriver": {"Data": self._layer(record), "Name": record.driver},
            "Mounts": shown(record.mounts, self._places(record)),
            "Config": config_shape.echo(record.config),
            "NetworkSettings": self._network_settings(record),
        }
        if size:
            document["SizeRw"], document["SizeRootFs"] = services.layers.usage(record.id)
        return document

    def _host_config(self, container: Container) -> Json:
        """Return ``HostConfig`` without the secrets of log and volume drivers."""
        services = self._services
        document: Json = host_shape.echo(container.record.host)
        document |= services.logs.shown_configs(container)
        for mount in document.get("Mounts") or []:
            driver = (mount.get("VolumeOptions") or {}).get("DriverConfig") or {}
            if driver.get("Options"):
                name = driver.get("Name") or "local"
                driver["Options"] = services.volumes.shown_options(name, driver["Options"])
        return document

    def _state(self, container: Container) -> Json:
        record, state = container.record, container.record.state
        document: Json = {
            "Status": record.status,
            "Running": state.running,
            "Paused": state.paused,
            "Restarting": state.restarting,
            "OOMKilled": state.oom_killed,
            "Dead": state.dead,
            "Pid": state.pid,
            "ExitCode": state.exit_code,
            "Error": state.error,
            "StartedAt": state.started_at,
            "FinishedAt": state.finished_at,
        }
        if container.health is not None:
            document["Health"] = container.health.shown()
        elif enabled(record.config.healthcheck):
            document["Health"] = {"Status": "starting", "FailingStreak": 0, "Log": []}
        return document

    def _layer(self, record: Record) -> dict[str, str] | None:
        try:
            return self._services.layers.metadata(record.id)
        except EngineError:  # it is shown without, when its driver is not installed any more
            return None

    def _log_path(self, record: Record) -> str:
        directory = self._services.directory(record.id)
        found = sorted(directory.glob(f"{record.id}*.log")) or sorted(directory.glob("*.log"))
        return str(found[0]) if found else ""

    def _places(self, record: Record) -> Mapping[str, str]:
        found = {}
        for point in record.mounts:
            if point.type == "volume":
                try:
                    volume = self._services.volumes.inspect(point.name)
                except EngineError:
                    continue
                found[point.name] = str(volume.get("Mountpoint") or "")
        return found

    def _networks(self, record: Record) -> Json:
        known = self._services.networks.endpoints(record.id)
        found = {}
        for name, asked in record.networks.items():
            kept = {key: value for key, value in asked.items() if value not in (None, "", [], {})}
            endpoint = {**_EMPTY_ENDPOINT, **kept, **(known.get(name) or {})}
            found[name] = endpoint
        for name, endpoint in known.items():
            found.setdefault(name, endpoint)
        return found

    def _network_settings(self, record: Record) -> Json:
        networks = self._networks(record)
        document: Json = {
            "Bridge": "",
            "SandboxID": record.id if record.state.running else "",
            "SandboxKey": self._sandbox(record),
            "Ports": self._ports(record),
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": None,
            "SecondaryIPv6Addresses": None,
        }
        # What was there before networks were many: the default bridge's.
        first = networks.get("bridge") or {}
        for key in _TOP_LEVEL:
            document[key] = first.get(key, 0 if key.endswith("Len") else "")
        document["Networks"] = networks
        return document

    def _sandbox(self, record: Record) -> str:
        if not record.state.running or record.host.network_mode == "host":
            return ""
        return f"/proc/{record.state.pid}/ns/net" if record.state.pid else ""

    def _ports(self, record: Record) -> Json:
        if not record.state.running:
            return {}
        found: Json = dict.fromkeys(record.config.exposed_ports or {})
        found.update(self._services.networks.ports(record.id))
        return found

    # the list

    def summary(self, container: Container, size: bool) -> Json:
        """Return ``ContainerSummary``."""
        record = container.record
        document: Json = {
            "Id": record.id,
            "Names": ["/" + record.name],
            "Image": record.image or record.image_id,
            "ImageID": record.image_id,
            "Command": _command(record),
            "Created": int(parse_timestamp(record.created)),
            "Ports": self._port_list(record),
            "Labels": record.labels,
            "State": record.status,
            "Status": status_text(container),
            "HostConfig": {
                "NetworkMode": record.host.network_mode,
                **({"Annotations": record.host.annotations} if record.host.annotations else {}),
            },
            "NetworkSettings": {"Networks": self._networks(record)},
            "Mounts": shown(record.mounts, {}),
        }
        if size:
            document["SizeRw"], document["SizeRootFs"] = self._services.layers.usage(record.id)
        return document

    def _port_list(self, record: Record) -> list[Json]:
        found: list[Json] = []
        for key, places in self._ports(record).items():
            number, _, protocol = key.partition("/")
            base = {"PrivatePort": int(number), "Type": protocol}
            if not places:
                found.append(base)
            for place in places or ():
                public = {"IP": place.get("HostIp", ""), "PublicPort": int(place["HostPort"])}
                found.append({**public, **base})
        return found


def _if_there(path: Path) -> str:
    return str(path) if path.exists() else ""


def _command(record: Record) -> str:
    words = [record.path, *(f"'{word}'" if " " in word else word for word in record.args)]
    return " ".join(words)


_LONG_TIMES = (
    ("hours", 1, 48), ("days", 24, 24 * 14), ("weeks", 24 * 7, 24 * 60),
    ("months", 24 * 30, 24 * 365 * 2), ("years", 24 * 365, 10**12),
)  # fmt: skip


def ago(seconds: float) -> str:
    """Return a length of time in Docker's words: ``5 minutes``, ``About an hour``."""
    seconds = max(0, int(seconds))
    minutes, hours = seconds // 60, int(seconds / 3600 + 0.5)
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    for unit, length, most in _LONG_TIMES:
        if hours < most:
            return f"{hours // length} {unit}"
    return "Ages"


def status_text(container: Container) -> str:
    """Return the human's status: ``Up 3 minutes (healthy)``, ``Exited (0) 2 hours ago``."""
    record, state, now = container.record, container.record.state, time.time()
    if record.phase == "removing":
        return "Removal In Progress"
    if state.restarting:
        finished = ago(now - parse_timestamp(state.finished_at))
        return f"Restarting ({state.exit_code}) {finished} ago"
    if state.running:
        text = "Up " + ago(now - parse_timestamp(state.started_at))
        if state.paused:
            return text + " (Paused)"
        if container.health is not None:
            status = container.health.status
            text += " (health: starting)" if status == "starting" else f" ({status})"
        return text
    if state.dead:
        return "Dead"
    if record.status == "created" or not parse_timestamp(state.finished_at):
        return "Created"
    return f"Exited ({state.exit_code}) {ago(now - parse_timestamp(state.finished_at))} ago"
