"""Getting a thin pool: one that is given, one made by LVM on a device, or one in sparse files.

``pool.json`` in the driver's root remembers which of them it was; a later start opens the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from drivetrain.errors import FailedPrecondition, InvalidArgument, NotFound
from drivetrain.host import loops
from drivetrain_storage_devicemapper import dm
from drivetrain_storage_devicemapper.filesystems import command, run
from drivetrain_storage_devicemapper.settings import Settings

log = logging.getLogger(__name__)

LOOP_WARNING = (
    "devicemapper keeps its pool in sparse files (loop-lvm), which is slow and not for production:"
    " give it a block device by --storage-opt dm.directlvm_device=/dev/…"
)
#: LVM gives out space in units of this many bytes.
_EXTENT = 4 << 20


@dataclass(frozen=True, slots=True)
class Pool:
    """Which pool a root uses.

    Attributes:
        kind: ``given``, ``lvm`` or ``loop``.
        name: of the pool's device.
        group: LVM's volume group, for ``lvm``.
        device: the block device, for ``lvm``.
    """

    kind: str
    name: str
    group: str = ""
    device: str = ""


def open_pool(root: Path, settings: Settings) -> Pool:
    """Return the pool of a root, active; it is made the first time.

    Raises:
        InvalidArgument: options that name another pool than the root has.
        NotFound: the pool, or its device, is gone.
        FailedPrecondition: the device holds something.
    """
    record = root / "pool.json"
    if record.exists():
        pool = Pool(**json.loads(record.read_text()))
        _check_same(root, pool, settings)
    elif settings.pool:
        pool = Pool("given", settings.pool)
    elif settings.device:
        pool = _make_lvm(root, settings)
    else:
        pool = Pool("loop", f"{prefix(root)}-pool")
    if pool.kind == "lvm":
        _write_profile(pool.group, settings)
    if pool.kind == "lvm" and dm.find(pool.name) is None:
        lvchange = command("lvchange", "lvm2")
        run([lvchange, "-ay", f"{pool.group}/thinpool"], f"activating thin pool {pool.name}")
    if pool.kind == "loop":
        log.warning("%s", LOOP_WARNING)
        _open_loop(root, pool, settings)
    _check_pool(pool)
    if not record.exists():
        temporary = root / "pool.json.tmp"
        temporary.write_text(json.dumps(asdict(pool)))
        temporary.rename(record)
    return pool


def prefix(root: Path) -> str:
    """Return how the names of a root's devices begin; it stays when the root is mounted anew."""
    found = root.stat()
    device = f"{os.major(found.st_dev)}_{os.minor(found.st_dev)}"
    return f"engine-{device}-{found.st_ino}"


def _check_same(root: Path, pool: Pool, settings: Settings) -> None:
    wanted = settings.pool or settings.device
    has = {"given": pool.name, "lvm": pool.device, "loop": ""}[pool.kind]
    if wanted and wanted != has:
        kind = f"{pool.kind} {has}".strip()
        raise InvalidArgument(
            f"{root} was made with another pool ({kind}), not {wanted}: give that one, or another"
            " --data-root"
        )


def _check_pool(pool: Pool) -> None:
    found = dm.find(pool.name)
    if found is None:
        raise NotFound(f"thin pool {pool.name} is not there; dmsetup ls shows what is")
    kind = dm.status(pool.name, table=True).type
    if kind != "thin-pool":
        raise InvalidArgument(f"{pool.name} is no thin pool but {kind}: lvconvert --type thin-pool")


def _make_lvm(root: Path, settings: Settings) -> Pool:
    """Make a volume group on a device, and in it a pool with a profile that extends it."""
    device = settings.device
    if not Path(device).is_block_device():
        raise InvalidArgument(f"dm.directlvm_device: {device} is not a block device")
    for program in ("pvcreate", "vgcreate", "lvcreate", "lvchange", "vgs"):
        command(program, "lvm2")
    command("thin_check", "thin-provisioning-tools")
    signatures = run(
        [command("wipefs", "util-linux"), "--noheadings", "--output", "TYPE", device],
        f"looking at {device}",
    ).split()
    group = "engine_" + hashlib.sha256(str(root).encode()).hexdigest()[:8]
    pool = Pool("lvm", f"{group}-thinpool", group, device)
    if signatures and not _is_half_made(group, device):
        if not settings.device_force:
            raise FailedPrecondition(
                f"dm.directlvm_device: {device} holds {', '.join(signatures)} and is left alone:"
                " empty it with wipefs -a, or add dm.directlvm_device_force=true"
            )
        run([command("wipefs", "util-linux"), "--all", device], f"emptying {device}")
    if not _is_half_made(group, device):
        run([command("pvcreate", "lvm2"), "-y", "-ff", device], f"LVM on {device}")
        run([command("vgcreate", "lvm2"), group, device], f"LVM on {device}")
    _make_lvm_pool(group, settings)
    return pool


def _is_half_made(group: str, device: str) -> bool:
    """Tell whether a crash came between the volume group and its pool's record."""
    listing = [command("pvs", "lvm2"), "--noheadings", "-o", "vg_name,pv_name"]
    lines = run(listing, "listing LVM's devices").splitlines()
    return any(line.split() == [group, os.path.realpath(device)] for line in lines)


def _make_lvm_pool(group: str, settings: Settings) -> None:
    lvs = [command("lvs", "lvm2"), "--noheadings", "-o", "lv_name", group]
    if "thinpool" in run(lvs, "listing LVM's volumes").split():
        return
    vgs = [command("vgs", "lvm2"), "--noheadings", "--units", "b", "--nosuffix", "-o", "vg_size"]
    size = int(float(run([*vgs, group], f"size of {group}")))
    metadata = min(max(int(size * settings.metadata_percent / 100), 4 << 20), 16 << 30)
    metadata -= metadata % _EXTENT
    purpose = f"making a thin pool on {settings.device}"
    run(
        [
            command("lvcreate", "lvm2"), "-y", "--type", "thin-pool",
            "--zero", "y", "--poolmetadatasize", f"{metadata}b",
            "--chunksize", f"{settings.block_size}b",
            "--extents", f"{settings.data_percent:.0f}%FREE", "--name", "thinpool", group,
        ],
        purpose,
    )  # fmt: skip
    profile = _write_profile(group, settings)
    for change in (("--metadataprofile", profile), ("--errorwhenfull", "y")):
        run([command("lvchange", "lvm2"), *change, f"{group}/thinpool"], purpose)


def _write_profile(group: str, settings: Settings) -> str:
    """Write when LVM extends the pool, into a profile of its own, and return its name."""
    folder = Path(os.environ.get("LVM_SYSTEM_DIR", "/etc/lvm")) / "profile"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{group}-thinpool"
    (folder / f"{name}.profile").write_text(
        "# Written by the devicemapper storage driver at each start: when its pool is extended.\n"
        "activation {\n"
        f"\tthin_pool_autoextend_threshold={settings.autoextend_threshold:.0f}\n"
        f"\tthin_pool_autoextend_percent={settings.autoextend_percent:.0f}\n"
        "}\n"
    )
    return name


def extend(pool: Pool) -> None:
    """Let LVM extend a pool that is fuller than its profile wants; dmeventd may do it as well."""
    lvextend = command("lvextend", "lvm2")
    run([lvextend, "--use-policies", f"{pool.group}/thinpool"], f"extending {pool.name}")


def _open_loop(root: Path, pool: Pool, settings: Settings) -> None:
    """Make the pool in two sparse files, unless it is active."""
    if dm.find(pool.name) is not None:
        return
    devices: list[loops.LoopDevice] = []
    try:
        for name, size in (
            ("metadata", settings.loop_metadata_size), ("data", settings.loop_data_size),
        ):  # fmt: skip
            file = root / name
            if not file.exists():
                with file.open("xb") as made:
                    file.chmod(0o600)
                    made.truncate(size)
            elif file.stat().st_size < size:
                os.truncate(file, size)
            devices.append(loops.attach(file))
        metadata, data = devices
        sectors = (root / "data").stat().st_size // dm.SECTOR
        table = f"{metadata.path} {data.path} {settings.block_size // dm.SECTOR} 32768"
        target = dm.Target(sectors, "thin-pool", f"{table} 1 error_if_no_space")
        dm.create(pool.name, target, uuid=f"ENGINE-{pool.name}"[:128])
    finally:
        # The pool keeps the devices; when it goes, they go.
        for device in devices:
            device.close()


def close_pool(pool: Pool) -> None:
    """Let go of a pool in sparse files when nothing uses it; others stay as they are."""
    if pool.kind == "loop":
        found = dm.find(pool.name)
        if found is not None and found.open_count == 0:
            dm.remove(pool.name)


def files(root: Path, pool: Pool) -> list[tuple[str, str]]:
    """Return where a pool in sparse files is, for the status."""
    if pool.kind != "loop":
        return []
    return [("Data loop file", str(root / "data")), ("Metadata loop file", str(root / "metadata"))]
