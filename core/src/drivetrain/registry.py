"""The registry: which drivers are installed, and one of them ready to be called.

::

    registry = Registry()
    registry.names("storage")            # ["overlay2", "vfs"]; nothing is imported for it
    driver = registry.storage("vfs")     # a new instance; only this driver is imported
    driver.call.storage_open(root, Options())

``DRIVETRAIN_BLOCK`` names drivers that are never imported (``vfs,log/journald``: a name, or family
and name), ``DRIVETRAIN_TRACE=1`` shows every call on standard error.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from drivetrain.absent import advice, is_known
from drivetrain.calling import Driver
from drivetrain.discovery import Entry, entries
from drivetrain.errors import EngineError, NotFound, NotSupported
from drivetrain.families import family
from drivetrain.finding import finders
from drivetrain.options import closest

if TYPE_CHECKING:
    from pathlib import Path

    from drivetrain.extension import ExtensionHooks
    from drivetrain.log import LogHooks
    from drivetrain.network import NetworkHooks
    from drivetrain.storage import StorageHooks
    from drivetrain.tracing import Trace
    from drivetrain.volume import VolumeHooks


@dataclass(frozen=True, slots=True)
class DriverInfo:
    """What is known of an installed driver.

    Attributes:
        family, name: which driver.
        distribution, version: the package it comes from; several, joined by ``, ``, when they
            contend for the name.
        state: ``ok``; ``blocked``: by ``DRIVETRAIN_BLOCK``; ``broken``: cannot be used.
        reason: why it is not ``ok``.
    """

    family: str
    name: str
    distribution: str
    version: str
    state: Literal["ok", "blocked", "broken"]
    reason: str = ""


class Registry:
    """The drivers that pip has installed.

    Args:
        block: ``name`` or ``family/name`` of drivers never to import; by default what
            ``DRIVETRAIN_BLOCK`` lists, separated by commas.
        trace: show every call of a hook on standard error; by default whether
            ``DRIVETRAIN_TRACE`` is set and not ``0``.
        middleware: objects whose ``@hookimpl(wrapper=True)`` methods wrap the hooks of all
            drivers, outside those that extensions bring.
    """

    def __init__(
        self,
        *,
        block: Collection[str] | None = None,
        trace: bool | None = None,
        middleware: Sequence[object] = (),
    ) -> None:
        if block is None:
            block = os.environ.get("DRIVETRAIN_BLOCK", "").replace(" ", ",").split(",")
        if trace is None:
            trace = os.environ.get("DRIVETRAIN_TRACE", "0") not in ("", "0")
        self._block = frozenset(filter(None, block))
        self._middleware = tuple(middleware)
        self._extensions: list[Driver[ExtensionHooks]] | None = None
        self._trace: Trace | None = None
        self._prepared: dict[tuple[str, str], Driver[object]] = {}
        if trace:
            from drivetrain.tracing import Trace

            self._trace = Trace()

    def names(self, family: str) -> list[str]:
        """Return the drivers of a family that may be loaded, sorted; imports none of them."""
        return [name for name, found in self._entries(family).items() if not _unusable(found)]

    def describe(self, family: str, *, load: bool = True) -> list[DriverInfo]:
        """Return all installed drivers of a family, the blocked and broken ones too.

        Args:
            family: ``storage``, ``network``, ``log``, ``volume`` or ``extension``.
            load: import them, to find what is broken; otherwise only what can be told without.
        """
        found: dict[str, list[Entry]] = {}
        for entry in entries():
            if entry.family == family:
                found.setdefault(entry.name, []).append(entry)
        described = [self._describe(group, load) for group in found.values()]
        for source, finder in finders(family):
            described += [
                DriverInfo(family, name, source.distribution, source.version, "ok")
                for name in finder.names()
                if name not in found
            ]
        return described

    def storage(self, name: str) -> Driver[StorageHooks]:
        """Return a new instance of a storage driver; errors as for :meth:`driver`."""
        return cast("Driver[StorageHooks]", self.driver("storage", name))

    def network(self, name: str) -> Driver[NetworkHooks]:
        """Return a new instance of a network driver; errors as for :meth:`driver`."""
        return cast("Driver[NetworkHooks]", self.driver("network", name))

    def log(self, name: str) -> Driver[LogHooks]:
        """Return a new instance of a log driver; errors as for :meth:`driver`."""
        return cast("Driver[LogHooks]", self.driver("log", name))

    def volume(self, name: str) -> Driver[VolumeHooks]:
        """Return a new instance of a volume driver; errors as for :meth:`driver`."""
        return cast("Driver[VolumeHooks]", self.driver("volume", name))

    def extensions(self) -> list[Driver[ExtensionHooks]]:
        """Return the installed extensions, one instance each for the life of this registry.

        A broken one is left out; :meth:`describe` tells why.
        """
        if self._extensions is None:
            loaded: list[Driver[ExtensionHooks]] = []
            for group in self._entries("extension").values():
                if not _unusable(group):
                    try:
                        found = self._load(group[0], ())
                    except EngineError:
                        continue
                    loaded.append(cast("Driver[ExtensionHooks]", found))
            self._extensions = loaded
        return list(self._extensions)

    def prepare(self, family: str, name: str) -> None:
        """Make an instance ahead of time, for who asks next; errors as for :meth:`driver`.

        A process that forks does this, so that its children need not.
        """
        self._prepared[family, name] = self.driver(family, name)

    def driver(self, family: str, name: str) -> Driver[object]:
        """Return a new instance of a driver; no other driver is imported.

        Raises:
            NotFound: no such driver is installed.
            NotSupported: it is blocked, cannot be imported, or does not keep to the contract.
        """
        if prepared := self._prepared.pop((family, name), None):
            return prepared
        group = self._entries(family, blocked=True).get(name)
        if group is None and (found := self._found(family, name)) is not None:
            return found
        if group is None:
            known = self.names(family)
            near = "" if is_known(family, name) else closest(name, known)
            way = "" if near else f". {advice(family, name)}"
            raise NotFound(
                f"No such {family} driver: {name}{near} "
                f"(installed: {', '.join(known) or 'none'}){way}"
            )
        if self._blocked(group[0]):
            raise NotSupported(f"{family} driver {name} is blocked by DRIVETRAIN_BLOCK")
        if reason := _unusable(group):
            raise NotSupported(reason)
        return self._load(group[0], self._all_middleware())

    def probe(self, family: str, name: str, root: Path) -> str:
        """Try whether this host can carry a driver.

        Args:
            family: ``storage``, ``network``, ``log`` or ``volume``.
            name: the driver.
            root: an existing directory; storage drivers try in a directory of their own in it.

        Returns:
            Why it cannot; empty when it can.

        Raises:
            NotFound: no such driver is installed.
        """
        # Here, since a container's shim imports this module and never probes.
        import tempfile
        from pathlib import Path

        try:
            call = cast("Any", self.driver(family, name).call)
            if family == "storage":
                with tempfile.TemporaryDirectory(prefix="probe-", dir=root) as directory:
                    call.storage_probe(Path(directory))
            else:
                getattr(call, f"{family}_probe")()
        except NotFound:
            raise
        except EngineError as error:
            return error.message
        return ""

    def _found(self, family_name: str, name: str) -> Driver[object] | None:
        """Return a driver that is no package of its own; see :mod:`drivetrain.finding`."""
        for entry, finder in finders(family_name):
            if {name, f"{family_name}/{name}"} & self._block:
                raise NotSupported(f"{family_name} driver {name} is blocked by DRIVETRAIN_BLOCK")
            instance = finder.driver(name)
            if instance is not None:
                return Driver(
                    family(family_name),
                    name,
                    instance,
                    distribution=entry.distribution,
                    version=entry.version,
                    middleware=self._all_middleware(),
                    trace=self._trace,
                )
        return None

    def _all_middleware(self) -> tuple[object, ...]:
        found = list(self._middleware)
        for extension in self.extensions():
            found += extension.call.extension_middleware()
        return tuple(found)

    def _load(self, entry: Entry, middleware: Sequence[object]) -> Driver[object]:
        return Driver(
            family(entry.family),
            entry.name,
            instance_of(entry),
            distribution=entry.distribution,
            version=entry.version,
            middleware=middleware,
            trace=self._trace,
        )

    def _entries(self, family_name: str, *, blocked: bool = False) -> dict[str, list[Entry]]:
        """Return the entries of a family by driver name."""
        family(family_name)
        found: dict[str, list[Entry]] = {}
        for entry in entries():
            if entry.family == family_name and (blocked or not self._blocked(entry)):
                found.setdefault(entry.name, []).append(entry)
        return found

    def _blocked(self, entry: Entry) -> bool:
        return entry.name in self._block or f"{entry.family}/{entry.name}" in self._block

    def _describe(self, group: list[Entry], load: bool) -> DriverInfo:
        entry = group[0]
        state: Literal["ok", "blocked", "broken"] = "ok"
        reason = ""
        if self._blocked(entry):
            state, reason = "blocked", "by DRIVETRAIN_BLOCK"
        elif reason := _unusable(group):
            state = "broken"
        elif load:
            try:
                self._load(entry, ())
            except EngineError as error:
                state, reason = "broken", error.message
        return DriverInfo(
            entry.family,
            entry.name,
            ", ".join(other.distribution for other in group),
            ", ".join(other.version for other in group),
            state,
            reason,
        )


def _unusable(group: list[Entry]) -> str:
    """Return why a name cannot be resolved without importing anything; empty when it can."""
    if len(group) == 1:
        return ""
    owners = " and ".join(f"{entry.distribution} {entry.version}" for entry in group)
    return (
        f"{group[0].family} driver {group[0].name} is announced by {owners}; "
        f"uninstall all but one of them"
    )


def instance_of(entry: Entry) -> object:
    """Import a driver's class and make an instance of it."""
    import importlib

    module_name, _, path = entry.value.partition(":")
    try:
        target: object = importlib.import_module(module_name.strip())
        for part in filter(None, path.strip().split(".")):
            target = getattr(target, part)
        if not isinstance(target, type):
            raise TypeError(f"{entry.value} is not a class")
        return target()
    except (Exception, SystemExit) as error:
        raise NotSupported(
            f"{entry.family} driver {entry.name} from {entry.distribution} {entry.version} "
            f"cannot be loaded: {type(error).__name__}: {error}"
        ) from error
