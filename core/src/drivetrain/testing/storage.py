"""The conformance kit of storage drivers.

Three lines make a suite::

    from drivetrain.testing.storage import StorageConformance

    class TestMine(StorageConformance):
        driver = "mine"

The checks do what the engine does: they mount what the driver returns, write, unmount, commit.
They need root.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from drivetrain.calling import Driver
from drivetrain.errors import EngineError, InvalidArgument, NotSupported
from drivetrain.host import mounts, trees
from drivetrain.options import Options, parse_options
from drivetrain.storage import StorageHooks, Use
from drivetrain.testing.base import Conformance, needs

#: Value of security.capability for cap_net_raw+ep: revision 2, effective, bit 13.
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


class StorageConformance(Conformance):
    """What every storage driver has to do; see ``drivetrain.storage``."""

    family = "storage"
    #: What the layers of the checks are made for.
    use: ClassVar[Use] = "container"

    @pytest.fixture(autouse=True)
    def _opened(self) -> Iterator[None]:
        with tempfile.TemporaryDirectory(prefix="storage-") as folder:
            self.base = Path(folder)
            self.root = self.make_root(self.base)
            self.parents: dict[str, tuple[str, ...]] = {}
            try:
                self.instance = self.open()
                yield
                for key in sorted(self.parents, key=lambda k: -len(self.parents[k])):
                    self.instance.call.layer_remove(key)
                self.instance.call.storage_close()
            finally:
                self.free_root(self.base)

    def make_root(self, base: Path) -> Path:
        """Return the driver's root below ``base``; override where it needs a file system."""
        root = base / "driver"
        root.mkdir(mode=0o711)
        return root

    def free_root(self, base: Path) -> None:
        """Undo what ``make_root`` did."""

    def open(self) -> Driver[StorageHooks]:
        """Return a new instance at work in the same root, as after a start of the engine."""
        driver = self.new_driver()
        driver.call.storage_probe(self.root)
        driver.call.storage_open(self.root, self.parsed(driver, "storage_options"))
        return driver

    def layer_options(self, **given: str) -> Options:
        """Return options of a layer."""
        schema = self.instance.call.layer_options()
        return parse_options(f"storage driver {self.driver}", schema, given)

    def create(self, key: str, parents: Sequence[str] = (), **given: str) -> str:
        """Make a layer; it is removed after the check."""
        self.parents[key] = tuple(parents)
        options = self.layer_options(**given)
        self.instance.call.layer_create(key, tuple(parents), options, self.use)
        return key

    @contextlib.contextmanager
    def mounted(self, key: str, read_only: bool = False) -> Iterator[Path]:
        """Mount a layer as the engine does, for the time of the context."""
        with tempfile.TemporaryDirectory(prefix="mnt-", dir=self.base) as folder:
            target = Path(folder)
            entries = self.instance.call.layer_mounts(key, self.parents[key], read_only)
            mounts.mount(entries, target)
            try:
                yield target
            finally:
                mounts.unmount(target)
                self.instance.call.layer_unmounted(key)

    def commit(self, key: str) -> str:
        """Commit a layer."""
        self.instance.call.layer_commit(key)
        return key

    def filled(self, key: str, parents: Sequence[str] = (), **files: str) -> str:
        """Make a committed layer with some files in its root."""
        self.create(key, parents)
        with self.mounted(key) as root:
            for name, text in files.items():
                (root / name).write_text(text)
        return self.commit(key)

    def chain(self, key: str) -> tuple[str, ...]:
        """Return a committed layer with its parents, nearest first: the parents of its child."""
        return (key, *self.parents[key])

    def changes(self, key: str) -> list[tuple[str, str]]:
        """Return the differences from the parent: by the driver, or by comparing the trees."""
        found = self.instance.call.layer_changes(key, self.parents[key])
        if found is None:
            with self.mounted(key, read_only=True) as new:
                if not self.parents[key]:
                    found = list(trees.compare(None, new))
                else:
                    with self.mounted(self.parents[key][0], read_only=True) as old:
                        found = list(trees.compare(old, new))
        return [(change.kind, change.path.decode()) for change in found]

    # the life of layers

    def test_an_empty_layer_is_an_empty_directory_of_root(self) -> None:
        with self.mounted(self.create("a")) as root:
            found = root.stat()
            assert stat.S_IMODE(found.st_mode) == 0o755
            assert (found.st_uid, found.st_gid) == (0, 0)
            assert [name for name in os.listdir(root) if name != "lost+found"] == []

    def test_what_was_written_is_there_at_the_next_mount(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            (root / "file").write_text("kept")
        with self.mounted("a") as root:
            assert (root / "file").read_text() == "kept"

    def test_all_attributes_survive_a_commit(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            file = root / "file"
            file.write_text("x")
            os.chown(file, 12, 34)
            file.chmod(0o4751)
            os.setxattr(file, "user.note", b"a\0b")
            os.setxattr(file, "security.capability", CAPABILITY)
            os.utime(file, ns=(10**18 + 1, 10**18 + 123_456_789))
            (root / "sticky").mkdir()
            (root / "sticky").chmod(0o1777)
        self.commit("a")
        with self.mounted(self.create("b", ["a"])) as root:
            file = root / "file"
            found = file.stat()
            assert (found.st_uid, found.st_gid, found.st_mtime_ns) == (12, 34, 10**18 + 123_456_789)
            assert os.getxattr(file, "user.note") == b"a\0b"
            assert os.getxattr(file, "security.capability") == CAPABILITY
            assert stat.S_IMODE((root / "sticky").stat().st_mode) == 0o1777

    def test_every_kind_of_entry_can_be_in_a_layer(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            os.mkfifo(root / "fifo")
            os.mknod(root / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
            (root / "link").symlink_to("nowhere")
            with socket.socket(socket.AF_UNIX) as unix:
                here = os.open(root, os.O_RDONLY)
                unix.bind(f"/proc/self/fd/{here}/socket")
                os.close(here)
            (root / "one").write_text("x")
            os.link(root / "one", root / "two")
            (root / os.fsdecode(b"\xff\xfe")).touch()
            with (root / "sparse").open("wb") as file:
                file.truncate(1 << 30)
        self.commit("a")
        with self.mounted(self.create("b", ["a"])) as root:
            assert stat.S_ISFIFO((root / "fifo").lstat().st_mode)
            assert (root / "device").lstat().st_rdev == os.makedev(1, 3)
            assert stat.S_ISSOCK((root / "socket").lstat().st_mode)
            assert os.readlink(root / "link") == "nowhere"
            assert (root / "one").stat().st_ino == (root / "two").stat().st_ino
            assert b"\xff\xfe" in os.listdir(os.fsencode(root))
            assert (root / "sparse").stat().st_size == 1 << 30
            assert (root / "sparse").stat().st_blocks * 512 < 1 << 20

    def test_a_parent_is_seen_and_never_changed(self) -> None:
        self.filled("a", one="1", two="2")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            (root / "one").write_text("changed")
            (root / "two").unlink()
            (root / "three").touch()
        with self.mounted("a", read_only=True) as root:
            assert (root / "one").read_text() == "1"
            assert (root / "two").read_text() == "2"
            assert not (root / "three").exists()

    def test_a_deleted_file_stays_deleted_in_children(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            (root / "file").unlink()
        self.commit("b")
        with self.mounted(self.create("c", ["b", "a"])) as root:
            assert not (root / "file").exists()

    def test_a_directory_made_anew_hides_what_was_in_it(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            (root / "folder").mkdir()
            (root / "folder" / "old").touch()
        self.commit("a")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            (root / "folder" / "old").unlink()
            (root / "folder").rmdir()
            (root / "folder").mkdir()
            (root / "folder" / "new").touch()
        self.commit("b")
        with self.mounted(self.create("c", ["b", "a"])) as root:
            assert os.listdir(root / "folder") == ["new"]

    def test_files_and_directories_can_be_renamed(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            (root / "folder").mkdir()
            (root / "folder" / "file").write_text("x")
        self.commit("a")
        with self.mounted(self.create("b", ["a"])) as root:
            (root / "folder" / "file").rename(root / "folder" / "renamed")
            try:
                (root / "folder").rename(root / "other")
            except OSError as error:
                # rename(2): programs must be ready for it, and then copy.
                assert error.errno == errno.EXDEV
            else:
                assert (root / "other" / "renamed").read_text() == "x"

    def test_forty_layers_equal_the_flat_tree(self) -> None:
        parents: tuple[str, ...] = ()
        expected: dict[str, str] = {}
        for number in range(40):
            key = f"layer{number}"
            self.create(key, parents)
            with self.mounted(key) as root:
                (root / f"own{number}").write_text(str(number))
                (root / "shared").write_text(str(number))
                if number >= 2:
                    (root / f"own{number - 2}").unlink()
                    del expected[f"own{number - 2}"]
            expected |= {f"own{number}": str(number), "shared": str(number)}
            self.commit(key)
            parents = (key, *parents)
        with self.mounted(self.create("top", parents)) as root:
            found = {p.name: p.read_text() for p in root.iterdir() if p.name != "lost+found"}
        assert found == expected

    def test_a_view_cannot_be_written(self) -> None:
        self.filled("a", file="x")
        self.filled("b", ["a"], other="y")
        for key in ("a", "b"):
            with self.mounted(key, read_only=True) as root:
                with pytest.raises(OSError) as refused:
                    (root / "new").touch()
                assert refused.value.errno == errno.EROFS
                assert (root / "file").read_text() == "x"

    # what changed

    def test_changes_are_told_exactly(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            for name in ("kept", "deleted", "modified", "folder/inner", "gone/inner"):
                (root / name).parent.mkdir(exist_ok=True)
                (root / name).write_text("x")
        self.commit("a")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            (root / "deleted").unlink()
            (root / "modified").write_text("y")
            (root / "folder" / "added").touch()
            (root / "gone" / "inner").unlink()
            (root / "gone").rmdir()
            (root / "new").mkdir()
            (root / "new" / "file").touch()
        assert [change for change in self.changes("b") if "lost+found" not in change[1]] == [
            ("deleted", "/deleted"),
            ("modified", "/folder"),
            ("added", "/folder/added"),
            ("deleted", "/gone"),
            ("modified", "/modified"),
            ("added", "/new"),
            ("added", "/new/file"),
        ]

    def test_an_edit_of_the_same_size_and_time_is_seen(self) -> None:
        self.filled("a", file="old")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            before = (root / "file").stat()
            (root / "file").write_text("new")
            os.utime(root / "file", ns=(before.st_atime_ns, before.st_mtime_ns))
        assert ("modified", "/file") in self.changes("b")

    def test_a_change_of_owner_alone_is_seen(self) -> None:
        self.filled("a", file="x", other="y")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            os.chown(root / "file", 5, 6)
        assert self.changes("b") == [("modified", "/file")]

    @needs("layer_usage")
    def test_usage_leaves_the_parents_out(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            (root / "big").write_bytes(os.urandom(4 << 20))
            os.sync()
        self.commit("a")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            (root / "small").write_bytes(os.urandom(64 << 10))
            os.sync()
        parent = self.instance.call.layer_usage("a", ())
        child = self.instance.call.layer_usage("b", ("a",))
        assert parent is not None and child is not None
        assert parent.size >= 4 << 20
        assert 64 << 10 <= child.size < 1 << 20

    # ends and beginnings

    def test_a_key_can_be_used_again_right_after_its_removal(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            (root / "old").touch()
        self.instance.call.layer_remove("a")
        with self.mounted(self.create("a")) as root:
            assert not (root / "old").exists()

    def test_removing_what_is_gone_or_never_was_is_fine(self) -> None:
        self.create("a")
        for _ in range(2):
            self.instance.call.layer_remove("a")
        self.instance.call.layer_remove("never")

    def test_nothing_is_left_of_removed_layers(self) -> None:
        before = sorted(path for path in self.root.rglob("*"))
        self.filled("a", file="x")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            (root / "file").write_text("y")
        for key in ("b", "a"):
            self.instance.call.layer_remove(key)
        assert sorted(path for path in self.root.rglob("*")) == before

    def test_layers_are_there_after_a_restart(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            (root / "mine").touch()
        self.instance.call.storage_close()
        self.instance.call.storage_close()
        self.instance = self.open()
        with self.mounted("b") as root:
            assert {"file", "mine"} <= set(os.listdir(root))

    def test_a_layer_stays_mounted_over_a_restart(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            self.instance = self.open()
            (root / "file").write_text("x")
            assert self.instance.call.layer_mounts("a", (), False)
        with self.mounted("a") as root:
            assert (root / "file").read_text() == "x"

    def test_many_layers_are_made_and_removed_at_once(self) -> None:
        self.filled("base", file="x")
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for turn in range(5):
                    key = f"k{number}t{turn}"
                    self.create(key, ["base"])
                    with self.mounted(key) as root:
                        assert (root / "file").read_text() == "x"
                    self.instance.call.layer_remove(key)
            except BaseException as error:
                failures.append(error)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert failures == []

    def test_an_unknown_option_is_named(self) -> None:
        schema = self.instance.call.layer_options()
        with pytest.raises(InvalidArgument, match="sise"):
            parse_options("storage", schema, {"sise": "1G"})

    def test_a_size_limits_the_layer_or_is_refused(self) -> None:
        schema = self.instance.call.layer_options()
        if not any(option.name == "size" for option in schema):
            return
        self.filled("a", file="x")
        try:
            self.create("b", ["a"], size="64m")
        except NotSupported as error:
            assert "size" in str(error)  # either way is fine, see the contract
            return
        with self.mounted("b") as root:
            assert (root / "file").read_text() == "x"
            with pytest.raises(OSError) as full, (root / "big").open("wb") as file:
                for _ in range(80):
                    file.write(os.urandom(1 << 20))
                    file.flush()
                os.fsync(file.fileno())
            assert full.value.errno in (errno.ENOSPC, errno.EDQUOT)
            (root / "big").unlink()

    def test_the_probe_leaves_its_root_as_it_was(self) -> None:
        with tempfile.TemporaryDirectory(dir=self.root.parent) as folder:
            place = self.root.parent / Path(folder).name
            with contextlib.suppress(EngineError):
                self.new_driver().call.storage_probe(place)
            assert list(place.iterdir()) == []

    def test_status_is_pairs_of_text(self) -> None:
        for name, value in self.instance.call.storage_status():
            assert name and isinstance(value, str)
