"""The options of the driver; docker's, with their defaults."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from drivetrain.errors import InvalidArgument
from drivetrain.options import Option, Options

_GIB = 1 << 30
_RETIRED = "the kernel is asked directly, without libdm and udev"

OPTIONS = (
    Option("dm.thinpooldev", help="a thin pool that the administrator made: vg-pool"),
    Option("dm.directlvm_device", help="a block device on which a thin pool is made by LVM"),
    Option("dm.directlvm_device_force", "boolean", help="even when something is on that device"),
    Option("dm.thinp_percent", "percent", default=95.0, help="of the device, for data"),
    Option("dm.thinp_metapercent", "percent", default=1.0, help="of the device, for metadata"),
    Option(
        "dm.thinp_autoextend_threshold", "percent", default=80.0,
        help="how full the pool is when LVM extends it",
    ),
    Option(
        "dm.thinp_autoextend_percent", "percent", default=20.0, help="by how much LVM extends it"
    ),
    Option("dm.basesize", "size", default=10 * _GIB, help="size of a root; can only grow"),
    Option("dm.loopdatasize", "size", default=100 * _GIB, help="of the sparse file for data"),
    Option("dm.loopmetadatasize", "size", default=2 * _GIB, help="of the one for metadata"),
    Option("dm.fs", "choice", choices=("xfs", "ext4"), help="file system of roots (xfs)"),
    Option("dm.mkfsarg", repeatable=True, help="an argument for mkfs"),
    Option("dm.mountopt", "list", help="mount options of roots"),
    Option("dm.blocksize", "size", default=64 << 10, help="what the pool gives out at once"),
    Option("dm.blkdiscard", "boolean", help="give blocks of removed layers back to the disk"),
    Option("dm.use_deferred_removal", "boolean", help="let the kernel remove busy devices later"),
    Option("dm.use_deferred_deletion", "boolean", help="delete layers that are in use later"),
    Option(
        "dm.min_free_space", "percent", default=10.0, help="no new layers when less is free"
    ),
    Option("dm.xfs_nospace_max_retries", "integer", help="how often xfs retries on a full pool"),
    Option("dm.override_udev_sync_check", "boolean", retired=_RETIRED),
    Option("dm.libdm_log_level", retired=_RETIRED),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """The options, checked against each other. Sizes in bytes, shares from 0 to 100."""

    pool: str
    device: str
    device_force: bool
    data_percent: float
    metadata_percent: float
    autoextend_threshold: float
    autoextend_percent: float
    base_size: int
    base_size_given: bool
    loop_data_size: int
    loop_metadata_size: int
    file_system: str
    mkfs_arguments: tuple[str, ...]
    mount_options: tuple[str, ...]
    block_size: int
    discard: bool
    deferred_removal: bool
    deferred_deletion: bool
    least_free: float
    xfs_retries: int | None


def read(options: Options) -> Settings:
    """Return the settings.

    Raises:
        InvalidArgument: options that contradict each other.
    """
    pool = options.string("dm.thinpooldev").removeprefix("/dev/mapper/")
    device = options.string("dm.directlvm_device")
    if pool and device:
        raise InvalidArgument("dm.thinpooldev and dm.directlvm_device: only one can be given")
    data, metadata = options.number("dm.thinp_percent"), options.number("dm.thinp_metapercent")
    if data + metadata > 100:
        raise InvalidArgument(
            f"dm.thinp_percent={data:g} and dm.thinp_metapercent={metadata:g} are more than 100%"
        )
    block_size = options.integer("dm.blocksize")
    if not 64 << 10 <= block_size <= 1 << 30 or block_size % (64 << 10):
        raise InvalidArgument("dm.blocksize: a multiple of 64k up to 1g is needed")
    deferred_removal = options.boolean("dm.use_deferred_removal")
    deferred_deletion = options.boolean("dm.use_deferred_deletion")
    if deferred_deletion and not deferred_removal:
        raise InvalidArgument("dm.use_deferred_deletion needs dm.use_deferred_removal=true")
    retries = options["dm.xfs_nospace_max_retries"]
    given = options["dm.blkdiscard"]
    return Settings(
        pool=pool,
        device=device,
        device_force=options.boolean("dm.directlvm_device_force"),
        data_percent=data,
        metadata_percent=metadata,
        autoextend_threshold=options.number("dm.thinp_autoextend_threshold"),
        autoextend_percent=options.number("dm.thinp_autoextend_percent"),
        base_size=options.integer("dm.basesize") // 512 * 512,
        base_size_given="dm.basesize" in options.given,
        loop_data_size=options.integer("dm.loopdatasize"),
        loop_metadata_size=options.integer("dm.loopmetadatasize"),
        file_system=options.string("dm.fs"),
        mkfs_arguments=tuple(
            word for argument in options.strings("dm.mkfsarg") for word in shlex.split(argument)
        ),
        mount_options=options.strings("dm.mountopt"),
        block_size=block_size,
        # A disk of one's own gains nothing by it, a sparse file gets its space back.
        discard=bool(given) if given is not None else not pool and not device,
        deferred_removal=deferred_removal,
        deferred_deletion=deferred_deletion,
        least_free=options.number("dm.min_free_space"),
        xfs_retries=retries if isinstance(retries, int) else None,
    )
