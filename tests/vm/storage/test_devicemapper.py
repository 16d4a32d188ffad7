"""The devicemapper driver keeps to the contract, with each kind of pool."""

from __future__ import annotations

import errno
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from tests.vm.storage import pools
from tests.vm.storage.pools import without_the_kit

from drivetrain.errors import (
    Exhausted,
    FailedPrecondition,
    InUse,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from drivetrain.testing.storage import StorageConformance
from drivetrain_storage_devicemapper import xfs
from drivetrain_storage_devicemapper.records import Records
from drivetrain_storage_devicemapper.thinpool import ThinPool

MIB = 1 << 20


class DeviceMapper(StorageConformance):
    """The kit on one pool for all checks of a class; each leaves it empty."""

    driver = "devicemapper"
    # On an emulated machine: a kill takes three seconds there.
    depth = 32
    kills = 4
    given: ClassVar[dict[str, str]] = {}

    place: ClassVar[Path]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _pool(cls) -> Iterator[None]:
        with tempfile.TemporaryDirectory(prefix="pool-") as folder:
            cls.place = Path(folder)
            (cls.place / "driver").mkdir()
            cls.options = {**cls.given, **cls.make_pool(cls.place)}
            try:
                yield
            finally:
                left = [name for name in pools.devices() if name.startswith("engine-")]
                pools.free_all()
        assert [name for name in left if not name.endswith("-pool")] == []

    @staticmethod
    def make_pool(place: Path) -> dict[str, str]:
        """Return the options that lead to the pool."""
        return {}

    def make_root(self, base: Path) -> Path:
        return self.place / "driver"

    def reopened(self, **given: str) -> None:
        """Start again, with other options."""
        driver = self.new_driver()
        named = {key.replace("_", ".", 1): text for key, text in given.items()}
        options = self.parsed(driver, "storage_options", {**self.options, **named})
        driver.call.storage_open(self.root, options)
        self.instance = driver

    def status(self) -> dict[str, str]:
        return dict(self.instance.call.storage_status())


# The kind of pool is nothing that the kit would see: it runs on those by LVM and given.
@without_the_kit
class TestPoolInFiles(DeviceMapper):
    given: ClassVar = {
        "dm.fs": "ext4", "dm.basesize": "48m", "dm.loopdatasize": "1g",
        "dm.loopmetadatasize": "8m",
    }  # fmt: skip

    def test_it_is_said_that_files_are_not_for_production(self) -> None:
        assert "not for production" in self.status()["WARNING"]
        assert self.status()["Data loop file"] == str(self.root / "data")

    def test_the_pool_and_its_loop_devices_go_when_nothing_uses_them(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            self.instance.call.storage_close()
            assert len(pools.devices()) == 2
            self.instance = self.open()
            (root / "file").touch()
        self.instance.call.storage_close()
        assert pools.devices() == []
        assert pools.run("losetup", "--list") == ""
        self.instance = self.open()
        with self.mounted("a") as root:
            assert (root / "file").exists()

    def test_the_files_give_back_what_a_removed_layer_took(self) -> None:
        used = lambda: (self.root / "data").stat().st_blocks * 512  # noqa: E731
        self.create("a")
        with self.mounted("a") as root:
            (root / "big").write_bytes(os.urandom(32 * MIB))
        full = used()
        self.instance.call.layer_remove("a")
        assert used() < full - 24 * MIB

    def test_a_size_is_that_of_the_whole_root_and_not_less_than_its_parents(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"], size="128m")
        with self.mounted("b") as root:
            found = os.statvfs(root)
            assert 100 * MIB < found.f_blocks * found.f_frsize <= 128 * MIB
            assert (root / "file").read_text() == "x"
        with pytest.raises(InvalidArgument, match="smaller than what it is made of"):
            self.create("c", ["a"], size="32m")

    def test_no_layer_is_made_when_less_than_the_least_is_free(self) -> None:
        self.filled("a", file="x")
        self.reopened(dm_min_free_space="99.95%")
        with pytest.raises(Exhausted, match=r"free, less than dm\.min_free_space=99\.95%"):
            self.create("b", ["a"])
        self.reopened()
        self.create("b", ["a"])

    @pytest.mark.parametrize("step", ["announced", "made", "recorded", "counted"])
    def test_a_crash_while_a_layer_is_made_leaves_it_whole_or_not_at_all(self, step: str) -> None:
        self.filled("a", file="x")
        before = pools.devices_in_pool(self.root)
        crash_in_child(lambda: self.create("b", ["a"]), step)
        self.instance = self.open()
        recorded = (self.root / "devices" / "b.json").exists()
        assert recorded == (step == "counted")
        assert pools.devices_in_pool(self.root) - before == int(recorded)
        with self.mounted(self.create("b", ["a"])) as root:
            assert (root / "file").read_text() == "x"

    @pytest.mark.parametrize("step", ["announced", "deleted", "recorded", "counted"])
    def test_a_crash_while_a_layer_is_removed_is_made_good(self, step: str) -> None:
        self.filled("a", file="x")
        before = pools.devices_in_pool(self.root)
        self.create("b", ["a"])
        crash_in_child(lambda: self.instance.call.layer_remove("b"), step)
        self.instance = self.open()
        assert not (self.root / "devices" / "b.json").exists()
        assert pools.devices_in_pool(self.root) == before
        self.instance.call.layer_remove("b")
        with self.mounted(self.create("b", ["a"])) as root:
            assert (root / "file").read_text() == "x"

    def test_a_busy_layer_can_be_deleted_later(self) -> None:
        deferred = {"dm_use_deferred_removal": "true", "dm_use_deferred_deletion": "true"}
        self.create("a")
        with self.mounted("a"):
            with pytest.raises(InUse, match="device of layer a is in use"):
                self.instance.call.layer_remove("a")
            self.reopened(**deferred)
            self.instance.call.layer_remove("a")
            assert self.status()["Deferred Deleted Device Count"] == "1"
            with self.mounted(self.create("b")):
                pass
        assert self.status()["Deferred Deleted Device Count"] == "0"
        with self.mounted(self.create("a")) as root:
            assert os.listdir(root) == []

    def test_options_that_contradict_each_other_are_refused(self) -> None:
        for given, message in (
            ({"dm_thinpooldev": "x", "dm_directlvm_device": "/dev/x"}, "only one can be given"),
            ({"dm_thinp_percent": "99", "dm_thinp_metapercent": "2"}, "more than 100%"),
            ({"dm_blocksize": "100k"}, "a multiple of 64k"),
            ({"dm_use_deferred_deletion": "true"}, "needs dm.use_deferred_removal"),
            ({"dm_thinpooldev": "other"}, "was made with another pool"),
        ):
            with pytest.raises(InvalidArgument, match=message):
                self.reopened(**given)


@without_the_kit
class TestPoolThatChanges(DeviceMapper):
    given: ClassVar = TestPoolInFiles.given

    def make_root(self, base: Path) -> Path:
        return StorageConformance.make_root(self, base)

    def free_root(self, base: Path) -> None:
        pools.free_all()

    def test_a_base_that_grows_is_grown_and_one_that_shrinks_is_refused(self) -> None:
        self.filled("old")
        self.reopened(dm_basesize="96m")
        self.create("new")
        for key, least, most in (("old", 36, 48), ("new", 76, 96)):
            with self.mounted(key) as root:
                found = os.statvfs(root)
                assert least * MIB < found.f_blocks * found.f_frsize <= most * MIB
        with pytest.raises(InvalidArgument, match=r"dm\.basesize can only grow"):
            self.reopened(dm_basesize="32m")
        with pytest.raises(InvalidArgument, match=r"dm\.fs=xfs: .* was made with ext4"):
            self.reopened(dm_fs="xfs")
        self.reopened(dm_basesize="96m")

    def test_a_pool_of_somebody_else_is_refused(self) -> None:
        self.create("a")
        self.instance.call.layer_remove("a")
        for path in (self.root / "devices").iterdir():
            path.unlink()
        with pytest.raises(FailedPrecondition, match="belongs to somebody else"):
            self.open()


class TestPoolByLvm(DeviceMapper):
    given: ClassVar = {"dm.fs": "ext4", "dm.basesize": "48m", "dm.blocksize": "128k"}

    @staticmethod
    def make_pool(place: Path) -> dict[str, str]:
        return {"dm.directlvm_device": pools.block_device(place / "disk", 1024 * MIB)}

    def test_the_pool_takes_the_shares_asked_for_and_has_a_profile(self) -> None:
        fields = "vg_name,lv_size,lv_metadata_size,lv_profile,chunk_size,lv_when_full"
        listed = pools.run(
            "lvs", "--noheadings", "--units", "m", "--nosuffix", "-o", fields, "-S", "lv_attr=~^t"
        ).split()
        group, size, metadata, profile, chunk, when_full = listed
        assert 900 < float(size) < 1000
        assert 4 <= float(metadata) <= 12
        assert (profile, float(chunk), when_full) == (f"{group}-thinpool", 0.12, "error")

    def test_a_pool_that_fills_is_extended_while_its_group_has_room(self) -> None:
        place = self.root = self.base / "driver2"
        place.mkdir()
        given = {
            "dm.fs": "ext4", "dm.basesize": "320m", "dm.thinp_percent": "25",
            "dm.thinp_autoextend_threshold": "60", "dm.thinp_autoextend_percent": "50",
            "dm.directlvm_device": pools.block_device(self.base / "other", 512 * MIB),
        }  # fmt: skip
        self.instance = self.new_driver()
        self.instance.call.storage_open(place, self.parsed(self.instance, "storage_options", given))
        pool = json.loads((place / "pool.json").read_text())
        size = lambda: ThinPool(pool["name"], "").status().data_total // MIB  # noqa: E731
        assert 112 <= (first := size()) <= 128
        self.create("a")
        with self.mounted("a") as root:
            (root / "one").write_bytes(os.urandom(80 * MIB))
            os.sync()
            # As dmeventd does, which watches the pool on hosts that have it.
            pools.run("lvextend", "--use-policies", f"{pool['group']}/thinpool")
            assert first * 1.45 <= (second := size()) <= first * 1.55
            (root / "two").write_bytes(os.urandom(50 * MIB))
            os.sync()
            self.create("b")
            assert second * 1.45 <= size() <= second * 1.55, "the driver looks, too"

    def test_the_pool_is_activated_after_a_reboot(self) -> None:
        self.filled("a", file="x")
        pools.run("vgchange", "-an")
        assert pools.devices() == []
        self.instance = self.open()
        with self.mounted("a", read_only=True) as root:
            assert (root / "file").read_text() == "x"

    def test_a_device_that_holds_something_is_left_alone(self) -> None:
        device = pools.block_device(self.base / "other", 512 * MIB)
        pools.run("mkfs.ext4", "-q", device)
        place = self.base / "driver2"
        place.mkdir()
        given = {"dm.fs": "ext4", "dm.basesize": "64m", "dm.directlvm_device": device}
        second = self.new_driver()
        with pytest.raises(FailedPrecondition, match=f"{device} holds ext4 and is left alone"):
            second.call.storage_open(place, self.parsed(second, "storage_options", given))
        pools.run("fsck.ext4", "-n", device)
        given["dm.directlvm_device_force"] = "true"
        second.call.storage_open(place, self.parsed(second, "storage_options", given))
        assert dict(second.call.storage_status())["Base Device Size"] == "67.11MB"


class TestPoolGiven(DeviceMapper):
    given: ClassVar = {"dm.basesize": "320m", "dm.fs": "xfs"}
    # The layers of that check are below the least size of xfs; here a whole pool is filled.
    test_a_full_layer_harms_no_other = None

    @staticmethod
    def make_pool(place: Path) -> dict[str, str]:
        return {"dm.thinpooldev": f"/dev/mapper/{pools.thin_pool(place, 'mypool', 1024 * MIB)}"}

    def test_another_device_than_a_pool_is_refused(self) -> None:
        device = pools.block_device(self.base / "plain", 8 * MIB)
        pools.run("dmsetup", "create", "plain", "--table", f"0 16384 linear {device} 0")
        place = self.base / "driver2"
        place.mkdir()
        driver = self.new_driver()
        for name, kind, message in (
            ("plain", InvalidArgument, "plain is no thin pool but linear"),
            ("nothing", NotFound, "thin pool nothing is not there"),
        ):
            given = self.parsed(driver, "storage_options", {"dm.thinpooldev": name})
            with pytest.raises(kind, match=message):
                driver.call.storage_open(place, given)

    def test_a_size_limits_the_layer_or_is_refused(self) -> None:
        """As in the kit, whose size is below the least of xfs."""
        self.filled("a", file="x")
        with pytest.raises(InvalidArgument, match="smaller than what it is made of"):
            self.create("c", ["a"], size="64m")
        with self.mounted(self.create("b", ["a"])) as root:
            with pytest.raises(OSError) as full, (root / "big").open("wb") as file:
                for _ in range(320):
                    file.write(os.urandom(MIB))
                os.fsync(file.fileno())
            assert full.value.errno == errno.ENOSPC

    def test_an_xfs_root_grows_to_its_size(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"], size="512m")
        with self.mounted("b") as root:
            found = os.statvfs(root)
            assert 400 * MIB < found.f_blocks * found.f_frsize <= 512 * MIB

    def test_xfs_retries_as_often_as_asked_for(self) -> None:
        self.reopened(dm_xfs_nospace_max_retries="7")
        self.create("a")
        with self.mounted("a"):
            device = Path(self.instance.call.layer_mounts("a", (), False)[0].source)
            assert xfs.setting(device).read_text() == "7\n"
        self.reopened()
        with self.mounted("a"):
            assert xfs.setting(device).read_text() == "-1\n"

    def test_mkfs_and_mounts_get_the_arguments_asked_for(self) -> None:
        place = self.base / "driver2"
        place.mkdir()
        pools.thin_pool(self.base, "second", 512 * MIB)
        driver = self.new_driver()
        given = {
            "dm.thinpooldev": "second", "dm.fs": "ext4", "dm.basesize": "64m",
            "dm.mkfsarg": "-L mylabel\n-O ^has_journal", "dm.mountopt": "noatime,discard",
        }  # fmt: skip
        driver.call.storage_open(place, self.parsed(driver, "storage_options", given))
        driver.call.layer_create("a", (), self.layer_options(), "image")
        mounted, _ = driver.call.layer_mounts("a", (), False)
        assert {"noatime", "discard"} <= set(mounted.options)
        shown = pools.run("dumpe2fs", "-h", mounted.source)
        assert "mylabel" in shown and "has_journal" not in shown
        driver.call.layer_unmounted("a")

    def test_a_full_pool_is_said_and_harms_no_other_container(self) -> None:
        place = self.root = self.base / "driver2"
        place.mkdir()
        given = {"dm.fs": "ext4", "dm.basesize": "512m"}
        given["dm.thinpooldev"] = pools.thin_pool(self.base, "small", 256 * MIB)
        self.instance = self.new_driver()
        self.instance.call.storage_open(place, self.parsed(self.instance, "storage_options", given))
        self.filled("img", file="x")
        self.create("good", ["img"])
        self.create("greedy", ["img"])
        with self.mounted("good") as good:
            kept = os.urandom(8 * MIB)
            (good / "kept").write_bytes(kept)
            os.sync()
            with self.mounted("greedy") as greedy:
                with pytest.raises(OSError) as full, (greedy / "big").open("wb") as file:
                    while True:
                        file.write(os.urandom(MIB))
                        os.fsync(file.fileno())
                assert full.value.errno in (errno.ENOSPC, errno.EIO)
                with pytest.raises(Exhausted, match=r"thin pool small has 0\.0% of its data"):
                    self.create("more", ["img"])
                assert "more.json" not in os.listdir(place / "devices")
                with (good / "kept").open("r+b") as file:
                    file.write(b"overwritten")
                    os.fsync(file.fileno())
            self.instance.call.layer_remove("greedy")
            (good / "after").write_bytes(os.urandom(8 * MIB))
            os.sync()
        with self.mounted("good") as good:
            assert (good / "kept").read_bytes() == b"overwritten" + kept[11:]
            assert (good / "after").stat().st_size == 8 * MIB
        with self.mounted(self.create("more", ["img"])) as root:
            assert (root / "file").read_text() == "x"

    def test_full_metadata_is_said_and_nothing_is_lost_when_it_was_mended(self) -> None:
        place = self.root = self.base / "driver2"
        place.mkdir()
        pools.thin_pool(self.base, "narrow", 4096 * MIB, 1 * MIB, "skip_block_zeroing")
        given = {"dm.fs": "ext4", "dm.basesize": "1g", "dm.thinpooldev": "narrow"}
        options = self.parsed(self.new_driver(), "storage_options", given)
        self.instance = self.new_driver()
        self.instance.call.storage_open(place, options)
        self.filled("img", file="x")
        greedy = ("g1", "g2", "g3")
        for key in ("good", *greedy):
            self.create(key, ["img"])
        with self.mounted("good") as good:
            (good / "kept").write_text("kept")
        with pytest.raises(OSError) as full:
            for key in greedy:
                device = self.instance.call.layer_mounts(key, ("img",), False)[0].source
                with open(device, "r+b", buffering=0) as file:
                    # Backwards, which leaves the leaves of the metadata half empty.
                    for start in reversed(range(0, 1024 * MIB, 64 << 10)):
                        os.pwrite(file.fileno(), b"x" * 4096, start)
                        if start % (64 * MIB) == 0:
                            os.fsync(file.fileno())
        assert full.value.errno in (errno.ENOSPC, errno.EIO)
        said = r"thin pool narrow (has failed|takes no changes).*repair it by"
        with pytest.raises(Unavailable, match=said):
            self.create("more", ["img"])
        for key in greedy:
            self.instance.call.layer_unmounted(key)
        self.instance.call.storage_close()
        pools.grow_metadata(self.base, "narrow", 8 * MIB)
        self.instance = self.new_driver()
        self.instance.call.storage_open(place, options)
        for key in greedy:
            self.instance.call.layer_remove(key)
        with self.mounted("good") as good, self.mounted(self.create("more", ["img"])) as more:
            assert (good / "kept").read_text() == "kept"
            assert (more / "file").read_text() == "x"


def crash_in_child(work: Callable[[], object], step: str) -> None:
    """Do something in a process that is killed at a step of its transaction."""

    def after(function: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object, **named: object) -> object:
            result = function(*arguments, **named)
            if step != "announced" or "transaction.json" in arguments:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    child = os.fork()
    if child == 0:
        match step:
            case "announced":
                Records._write = after(Records._write)
            case "made":
                ThinPool.create_snapshot = after(ThinPool.create_snapshot)
            case "deleted":
                ThinPool.delete = after(ThinPool.delete)
            case "recorded":
                ThinPool.set_transaction = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            case "counted":
                ThinPool.set_transaction = after(ThinPool.set_transaction)
        work()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
