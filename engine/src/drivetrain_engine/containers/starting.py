"""What a start needs from the other services, in order, and its undoing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from drivetrain.errors import EngineError, FailedPrecondition, Internal, InvalidArgument
from drivetrain.host.mounts import mount, unmount
from drivetrain.storage import Mount
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.networking import links, sandbox_request
from drivetrain_engine.containers.protocol import LogSetup, ShimSpec
from drivetrain_engine.containers.record import Record
from drivetrain_engine.containers.request.modes import container_mode
from drivetrain_engine.containers.rooted import Root
from drivetrain_engine.containers.services import Services
from drivetrain_engine.containers.shimlink import Shim
from drivetrain_engine.containers.spec.build import Place, build_spec
from drivetrain_engine.containers.spec.cgroups import cgroup_path, host_cgroups
from drivetrain_engine.containers.spec.users import find_user
from drivetrain_engine.networks import SandboxRequest

Json = dict[str, Any]

#: Files of the engine in every container, by where they are seen.
_NETWORK_FILES = (
    ("/etc/resolv.conf", "resolv.conf"),
    ("/etc/hostname", "hostname"),
    ("/etc/hosts", "hosts"),
)


class Starter:
    """Brings a container up to the point where its process waits to be started.

    All methods are called with the container's lock held.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    def prepare(self, container: Container) -> Shim:
        """Provide root, mounts, network and process; after an error nothing of it is left.

        Raises:
            EngineError: what went wrong, for the user.
        """
        try:
            rootfs = self._services.rootfs.mount(container.id)
            return self._prepare(container, rootfs)
        except BaseException as error:
            self.cleanup(container)
            if isinstance(error, OSError):
                raise Internal(
                    f"cannot start container {container.record.name}: {error}"
                ) from error
            raise

    def _prepare(self, container: Container, rootfs: Path) -> Shim:
        services, record = self._services, container.record
        mounts = services.mounts.provide(record, rootfs)
        joined = self._joined(record)
        network, variables = self._network(record)
        with Root(rootfs) as root:
            user = find_user(root, record.config.user, record.host.group_add or ())
            self._make_workdir(root, record)
        place = Place(
            rootfs=rootfs,
            user=user,
            mounts=[*self._network_mounts(record), *mounts],
            network=network,
            joined=joined,
            shm=self._shm(record),
            environment=variables,
        )
        bundle = services.bundle(record.id)
        bundle.mkdir(parents=True, exist_ok=True)
        spec = build_spec(record, services.settings, place)
        (bundle / "config.json").write_bytes(msgspec.json.encode(spec))
        return services.shims.create(self._shim_spec(record, bundle))

    def _shim_spec(self, record: Record, bundle: Path) -> ShimSpec:
        services = self._services
        return ShimSpec(
            container_id=record.id,
            bundle=str(bundle),
            runtime=services.settings.runtimes[record.host.runtime],
            terminal=record.config.tty,
            stdin=record.config.open_stdin,
            stdin_once=record.config.stdin_once,
            logs=msgspec.convert(record.logs, list[LogSetup]),
            directory=str(services.directory(record.id)),
        )

    def _make_workdir(self, root: Root, record: Record) -> None:
        path = record.config.working_dir
        if not path or path == "/":
            return
        try:
            root.make_directories(path)
        except OSError as error:
            # Below a mount of the user, or read-only: the runtime finds or makes it.
            if isinstance(error, NotADirectoryError):
                raise InvalidArgument(
                    f"cannot mkdir: {path} in the container is not a directory"
                ) from None

    # namespaces

    def _other(self, reference: str, what: str) -> Record:
        other = self._services.store.find(reference).record
        if not other.state.running or not other.state.pid:
            raise FailedPrecondition(f"cannot join {what} of a non running container: {other.id}")
        return other

    def _joined(self, record: Record) -> dict[str, str]:
        found = {}
        for kind, mode in (("ipc", record.host.ipc_mode), ("pid", record.host.pid_mode)):
            if reference := container_mode(mode):
                other = self._other(reference, kind.upper())
                if kind == "ipc" and other.host.ipc_mode not in ("shareable", "host"):
                    raise FailedPrecondition(
                        f"can't join IPC of container {other.id}: non-shareable IPC (hint: use "
                        "IpcMode:shareable for the donor container)"
                    )
                found[kind] = f"/proc/{other.state.pid}/ns/{kind}"
        return found

    def _network(self, record: Record) -> tuple[str | None, list[str]]:
        """Return the path of the network namespace (``None``: the host's) and variables."""
        if reference := container_mode(record.host.network_mode):
            other = self._other(reference, "network")
            return f"/proc/{other.state.pid}/ns/net", []
        services = self._services
        hosts, variables = links(record, services.store.find, self._bridge_address)
        request = sandbox_request(record, services.directory(record.id), hosts)
        result = services.networks.start(request)
        return (None if result.path is None else str(result.path)), variables

    def _bridge_address(self, container_id: str) -> str:
        found = self._services.networks.endpoints(container_id).get("bridge") or {}
        return str(found.get("IPAddress") or "")

    def request(self, record: Record) -> SandboxRequest:
        """Return the sandbox of a container that runs already."""
        return sandbox_request(record, self._services.directory(record.id))

    def _network_mounts(self, record: Record) -> list[Json]:
        """Return the mounts of hosts, resolv.conf and hostname."""
        owner = record.id
        if reference := container_mode(record.host.network_mode):
            owner = self._services.store.find(reference).id
        directory = self._services.directory(owner)
        taken = {point.destination for point in record.mounts}
        access = "ro" if record.host.readonly_rootfs else "rw"
        return [
            {
                "destination": target,
                "type": "bind",
                "source": str(directory / name),
                "options": ["rbind", "rprivate", access],
            }
            for target, name in _NETWORK_FILES
            if target not in taken and (directory / name).exists()
        ]

    # shared memory

    def _shm(self, record: Record) -> str:
        """Return the directory to mount at /dev/shm; empty: the runtime makes one."""
        if reference := container_mode(record.host.ipc_mode):
            other = self._services.store.find(reference)
            if other.record.host.ipc_mode == "host":
                return "/dev/shm"
            return str(self._services.shm(other.id))
        if record.host.ipc_mode != "shareable":
            return ""
        path = self._services.shm(record.id)
        path.mkdir(parents=True, exist_ok=True)
        unmount(path)
        options = ("nosuid", "noexec", "nodev", "mode=1777", f"size={record.host.shm_size}")
        mount((Mount("tmpfs", "shm", options),), path)
        return str(path)

    # the end

    def cleanup(self, container: Container) -> list[Exception]:
        """Undo :meth:`prepare`, all of it, whatever fails; returns what did."""
        services, record = self._services, container.record
        errors: list[Exception] = []
        group = cgroup_path(record.id, record.host.cgroup_parent, services.settings.cgroup_parent)
        steps: tuple[Callable[[], object], ...] = (
            # First: whoever is still in it holds the mounts.
            lambda: host_cgroups().remove(group),
            lambda: services.networks.stop(record.id),
            lambda: services.rootfs.unmount(record.id),
            lambda: self._remove_shm(record.id),
            lambda: shutil.rmtree(services.bundle(record.id), ignore_errors=True),
        )
        for step in steps:
            try:
                step()
            except (EngineError, OSError) as error:
                errors.append(error)
        errors += services.mounts.free(record)
        return errors

    def _remove_shm(self, container_id: str) -> None:
        path = self._services.shm(container_id)
        if path.exists():
            unmount(path)
            path.rmdir()
