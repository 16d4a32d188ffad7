"""What is mounted into a container: chosen at creation, provided at every start."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivetrain.errors import EngineError, InvalidArgument, NotFound
from drivetrain.host import idmaps, mounts
from drivetrain.storage import Mount
from drivetrain_engine.containers.record import MountPoint, Record
from drivetrain_engine.containers.request.config import Config
from drivetrain_engine.containers.request.hostconfig import HostConfig
from drivetrain_engine.containers.rooted import Root
from drivetrain_engine.containers.spec.mounts import user_mount
from drivetrain_engine.state import new_id
from drivetrain_engine.volumes import ParsedMount, parse_bind, parse_mount, parse_tmpfs

if TYPE_CHECKING:
    from drivetrain_engine.content import Images
    from drivetrain_engine.layers import Layers
    from drivetrain_engine.volumes import Volumes

Json = dict[str, Any]
_ANONYMOUS = "com.docker.volume.anonymous"


class Wanted:
    """A mount point with what is needed to make its volume."""

    def __init__(self, point: MountPoint, parsed: ParsedMount | None = None) -> None:
        self.point = point
        self.options = dict(parsed.driver_options) if parsed else {}
        self.labels = dict(parsed.labels) if parsed else {}
        self.driver = parsed.driver if parsed else ""


class MountPoints:
    """Plans, provides and frees the mounts of containers.

    Args:
        volumes, layers, images: the services.
        find: returns the record of a container by reference, for ``--volumes-from``.
        maps: where mounts with other owners are made.
    """

    def __init__(
        self,
        volumes: Volumes,
        layers: Layers,
        images: Images,
        find: Callable[[str], Record],
        maps: Path,
    ) -> None:
        self._maps = maps
        self._volumes = volumes
        self._layers = layers
        self._images = images
        self._find = find

    # creation

    def plan(self, config: Config, host: HostConfig) -> list[Wanted]:
        """Return what is to be mounted; nothing is made yet, but new volumes have names.

        Raises:
            InvalidArgument: a mount that is none, or two at one place.
            NotFound: ``--volumes-from`` of no container.
        """
        found: dict[str, Wanted] = {}
        for text in host.volumes_from or ():
            for point in self._inherited(text):
                found[point.destination] = Wanted(point)
        own: dict[str, Wanted] = {}
        parsed = [(parse_bind(text, host.volume_driver), False) for text in host.binds or ()]
        parsed += [(parse_mount(body), True) for body in host.mounts or ()]
        parsed += [(parse_tmpfs(*pair), False) for pair in (host.tmpfs or {}).items()]
        for mount, from_mounts in parsed:
            if mount.target in own:
                raise InvalidArgument(f"Duplicate mount point: {mount.target}")
            own[mount.target] = Wanted(_point(mount, from_mounts), mount)
        found.update(own)
        for target in config.volumes or ():
            mount = parse_bind(target, host.volume_driver)
            if mount.target not in found:
                found[mount.target] = Wanted(_point(mount, False), mount)
        return list(found.values())

    def _inherited(self, text: str) -> list[MountPoint]:
        reference, _, mode = text.partition(":")
        if mode not in ("", "ro", "rw", "z", "Z"):
            raise InvalidArgument(f'invalid mode: "{mode}" in --volumes-from {text}')
        found = []
        for point in self._find(reference).mounts:
            if point.type in ("bind", "volume"):
                found.append(
                    _copy(
                        point,
                        writable=point.writable and mode != "ro",
                        anonymous=False,
                        populated=True,
                    )
                )
        return found

    def acquire(self, wanted: list[Wanted], container_id: str) -> None:
        """Make volumes that are missing, and refer to all of them.

        Raises:
            EngineError: of the volume service; what was made remains, :meth:`release` undoes it.
        """
        for want in wanted:
            point = want.point
            if point.type == "volume":
                labels = {**want.labels, _ANONYMOUS: ""} if point.anonymous else want.labels
                made = self._volumes.create(point.name, want.driver, want.options, labels)
                point.driver = str(made["Driver"])
                if self._volumes.is_snapshot(point.name):
                    point.writable, point.no_copy = False, True
                self._volumes.acquire(point.name, container_id)
            elif point.type == "image":
                self._images.get(point.source)

    def release(self, record: Record, *, remove_anonymous: bool) -> list[Exception]:
        """Refer to no volume any more, and remove those made for this container if asked to.

        Volumes that another container still uses stay. Returns what went wrong.
        """
        errors: list[Exception] = []
        for point in record.mounts:
            if point.type != "volume":
                continue
            try:
                self._volumes.release(point.name, record.id)
                if remove_anonymous and point.anonymous and not self._volumes.users(point.name):
                    self._volumes.remove(point.name, force=True)
            except NotFound:
                continue
            except EngineError as error:
                errors.append(error)
        return errors

    # start and end

    def provide(self, record: Record, rootfs: Path) -> list[Json]:
        """Mount volumes, make missing directories, and return the OCI mounts, upper ones first.

        Raises:
            EngineError: something is missing; :meth:`free` undoes what was done.
        """
        points = sorted(record.mounts, key=lambda point: point.destination.count("/"))
        return [user_mount(point, self._mapped(record, point, rootfs)) for point in points]

    def _mapped(self, record: Record, point: MountPoint, rootfs: Path) -> str:
        """Return the source of a mount, by way of a mount that the engine makes if need be."""
        source = self._source(record, point, rootfs)
        if not point.idmap and not point.non_recursive:
            return source
        place = self._map_place(record, point)
        mounts.unmount(place)
        if os.path.isdir(source):
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        if point.idmap:
            idmaps.bind(Path(source), place, idmaps.parse(point.idmap))
        else:
            # crun 1.8 takes what is mounted below along even when told not to
            mounts.mount((Mount("bind", source, ("bind",)),), place)
        return str(place)

    def _map_place(self, record: Record, point: MountPoint) -> Path:
        name = hashlib.sha256(point.destination.encode()).hexdigest()[:16]
        return self._maps / record.id / name

    def _source(self, record: Record, point: MountPoint, rootfs: Path) -> str:
        match point.type:
            case "bind":
                return _bind_source(point)
            case "volume":
                path = self._volumes.mount(point.name, record.id)
                if not point.populated:
                    if not point.no_copy and not point.subpath:
                        self._populate(path, rootfs, point.destination)
                    point.populated = True
            case "image":
                image = self._images.get(point.source)
                path = self._layers.mount_image(image, _image_user(record, point))
            case _:
                return ""
        return _below(path, point.subpath) if point.subpath else str(path)

    def _populate(self, volume: Path, rootfs: Path, destination: str) -> None:
        with Root(rootfs) as root:
            try:
                source = root.resolve(destination)
            except OSError:
                return  # the image has nothing there
        self._volumes.copy_up(volume, Path(source))

    def free(self, record: Record) -> list[Exception]:
        """Unmount what a container had mounted; returns what went wrong."""
        errors: list[Exception] = []
        for point in record.mounts:
            try:
                if point.idmap or point.non_recursive:
                    place = self._map_place(record, point)
                    mounts.unmount(place)
                    shutil.rmtree(place.parent, ignore_errors=True)
                if point.type == "volume":
                    self._volumes.unmount(point.name, record.id)
                elif point.type == "image":
                    image = self._images.get(point.source)
                    self._layers.unmount_image(image, _image_user(record, point))
            except NotFound:
                continue
            except (EngineError, OSError) as error:
                errors.append(error)
        return errors


def _image_user(record: Record, point: MountPoint) -> str:
    # part of the name of a directory
    return f"{record.id}-{hashlib.sha256(point.destination.encode()).hexdigest()[:16]}"


def _copy(point: MountPoint, **changes: Any) -> MountPoint:
    fields = {name: getattr(point, name) for name in point.__struct_fields__}
    return MountPoint(**{**fields, **changes})


def _point(mount: ParsedMount, from_mounts: bool) -> MountPoint:
    volume = mount.type == "volume"
    return MountPoint(
        type=mount.type,
        source="" if volume else mount.source,
        destination=mount.target,
        name=(mount.source or new_id()) if volume else "",
        driver=mount.driver,
        mode=mount.mode,
        writable=not mount.read_only,
        propagation=mount.propagation,
        no_copy=mount.no_copy,
        anonymous=mount.anonymous,
        subpath=mount.subpath,
        options=mount.tmpfs_options,
        size=mount.tmpfs_size,
        permissions=mount.tmpfs_mode,
        create=mount.create_mountpoint,
        non_recursive=mount.non_recursive,
        shallow_read_only=mount.read_only_non_recursive,
        from_mounts=from_mounts,
        idmap=mount.idmap,
    )


def _bind_source(point: MountPoint) -> str:
    if not os.path.lexists(point.source):
        if not point.create:
            raise InvalidArgument(
                f'invalid mount config for type "bind": bind source path does not exist: '
                f"{point.source}"
            )
        try:
            os.makedirs(point.source, 0o755, exist_ok=True)
        except OSError as error:
            raise InvalidArgument(
                f"error while creating mount source path '{point.source}': {error.strerror}"
            ) from None
    return point.source


def _below(path: Path, subpath: str) -> str:
    with Root(path) as root:
        try:
            return root.resolve(subpath)
        except OSError as error:
            raise InvalidArgument(
                f"cannot access path {path}/{subpath}: {error.strerror}"
            ) from None


def shown(points: list[MountPoint], places: Mapping[str, str]) -> list[Json]:
    """Return ``Mounts`` of ``inspect``.

    Args:
        points: of a container.
        places: directory by volume name, where known.
    """
    found = []
    for point in points:
        if point.type == "tmpfs" and not point.from_mounts:
            continue  # as Docker: those of --tmpfs are only in HostConfig
        entry: Json = {"Type": point.type}
        if point.type == "volume":
            entry["Name"] = point.name
            entry["Source"] = places.get(point.name, "")
        else:
            entry["Source"] = point.source
        entry["Destination"] = point.destination
        if point.type == "volume":
            entry["Driver"] = point.driver
        entry["Mode"] = point.mode or ("z" if point.type == "volume" and point.from_mounts else "")
        entry["RW"] = point.writable
        entry["Propagation"] = (point.propagation or "rprivate") if point.type == "bind" else ""
        found.append(entry)
    return found
