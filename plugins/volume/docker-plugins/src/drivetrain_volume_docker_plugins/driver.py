"""The driver that stands for one plugin."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from drivetrain import hookimpl
from drivetrain.errors import Internal, NotFound, NotSupported
from drivetrain.options import Option, Options
from drivetrain.volume import VolumeInfo, VolumeTraits
from drivetrain_volume_docker_plugins.client import PATIENCE, Client, Finding, PluginError

#: Seconds for what may take a while, as in Docker; a hook has 60.
LONG = 30.0
#: Seconds for questions; a list of volumes waits 10 s for all drivers.
SHORT = 8.0


class DockerPlugin:
    """Translates hooks to calls of a plugin.

    Args:
        name: of the plugin.
        finding: returns its address.
    """

    def __init__(self, name: str, finding: Finding) -> None:
        self._name = name
        self._finding = finding
        self._client = Client(name, finding)
        self._activated = False
        self._scope: Literal["local", "global"] = "local"
        self._paths: dict[str, Path] = {}

    def _call(
        self,
        method: str,
        body: Mapping[str, object],
        timeout: float,
        patience: float = PATIENCE,
    ) -> dict[str, object] | None:
        if not self._activated:
            self._activate(timeout, patience)
        return self._client.call(f"VolumeDriver.{method}", body, timeout, patience=patience)

    def _activate(self, timeout: float, patience: float) -> None:
        found = self._client.call("Plugin.Activate", {}, timeout, patience=patience) or {}
        kinds = found.get("Implements")
        if not isinstance(kinds, list) or "VolumeDriver" not in kinds:
            raise NotSupported(f"the Docker plugin {self._name} handles no volumes: {kinds}")
        self._activated = True
        try:
            answer = self._client.call("VolumeDriver.Capabilities", {}, timeout) or {}
        except PluginError:  # of plugins older than this call
            return
        capabilities = answer.get("Capabilities")
        if isinstance(capabilities, dict) and str(capabilities.get("Scope")).lower() == "global":
            self._scope = "global"

    def _user(self, name: str) -> str:
        """The id that mount and unmount of a volume share; the engine counts the containers."""
        return hashlib.sha256(f"{self._name}/{name}".encode()).hexdigest()

    @hookimpl
    def volume_traits(self) -> VolumeTraits:
        """Return what the plugin said when it was first called, without calling it."""
        return VolumeTraits(self._scope, own_state=True)

    @hookimpl
    def volume_options(self) -> Sequence[Option]:
        """Take any option: only the plugin knows them."""
        return (Option("*", help="whatever the plugin knows; see its documentation"),)

    @hookimpl
    def volume_open(self) -> bool:
        """Do nothing: a plugin that is away must not keep the engine from its other volumes."""
        return True

    @hookimpl
    def volume_create(self, name: str, options: Options) -> bool:
        """Make a volume with the options as the user wrote them."""
        self._call("Create", {"Name": name, "Opts": dict(options.given)}, LONG)
        return True

    @hookimpl
    def volume_mount(self, name: str) -> Path:
        """Return where the plugin put the volume."""
        found = self._call("Mount", {"Name": name, "ID": self._user(name)}, LONG) or {}
        place = found.get("Mountpoint")
        if not isinstance(place, str) or not place.startswith("/"):
            raise Internal(
                f"the Docker plugin {self._name} mounted volume {name} at {place!r}, "
                "where an absolute path is needed"
            )
        self._paths[name] = Path(place)
        return self._paths[name]

    @hookimpl
    def volume_unmount(self, name: str) -> bool:
        """Tell the plugin that the last user is gone; that there was none is no error."""
        try:
            self._call("Unmount", {"Name": name, "ID": self._user(name)}, LONG)
        except PluginError:
            if name in self._paths:
                raise
        self._paths.pop(name, None)
        return True

    @hookimpl
    def volume_remove(self, name: str) -> bool:
        """Remove a volume; one that the plugin does not have is fine."""
        try:
            self._call("Remove", {"Name": name}, LONG)
        except PluginError:
            if any(volume.name == name for volume in self.volume_list()):
                raise
        self._paths.pop(name, None)
        return True

    @hookimpl
    def volume_path(self, name: str) -> Path | None:
        """Return the place that the plugin told last."""
        return self._paths.get(name)

    @hookimpl
    def volume_list(self) -> Sequence[VolumeInfo]:
        """Return all volumes of the plugin; one that does not run is not waited for."""
        if self._finding() is None:
            raise NotFound(f"the Docker plugin {self._name} is no longer there; start it")
        found = (self._call("List", {}, SHORT, 0.0) or {}).get("Volumes") or []
        volumes = []
        for entry in found if isinstance(found, list) else []:
            if isinstance(entry, dict) and isinstance(entry.get("Name"), str):
                place = str(entry.get("Mountpoint") or "")
                path = Path(place) if place.startswith("/") else None
                status = {str(key): str(text) for key, text in (entry.get("Status") or {}).items()}
                created = str(entry.get("CreatedAt") or "")
                volumes.append(VolumeInfo(entry["Name"], path, created, status))
        return volumes
