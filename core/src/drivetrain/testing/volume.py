"""The conformance kit of volume drivers.

Three lines make a suite::

    from drivetrain.testing.volume import VolumeConformance

    class TestMine(VolumeConformance):
        driver = "mine"

``options`` are those of the volumes that the checks make; where each volume needs its own, such
as a device, override :meth:`VolumeConformance.volume_options`; for a driver that needs a certain
file system, :meth:`VolumeConformance.driver_root`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from drivetrain.calling import Driver
from drivetrain.errors import EngineError, Exhausted, InvalidArgument, NotSupported
from drivetrain.options import Options, masked
from drivetrain.testing.base import Conformance, needs, when
from drivetrain.testing.capabilities import bound_by_quotas
from drivetrain.volume import VolumeHooks

_SECRET_WORDS = ("password", "secret", "token", "passphrase")


def _has_own_state(driver: Driver[VolumeHooks]) -> bool:
    return driver.call.volume_traits().own_state


def _has_option(name: str):  # type: ignore[no-untyped-def]
    return lambda driver: any(option.name == name for option in driver.call.volume_options())


class Volume:
    """A volume of a check, with the options that go with it."""

    def __init__(self, driver: Driver[VolumeHooks], name: str, options: Options) -> None:
        self.driver = driver
        self.name = name
        self.options = options

    def create(self) -> None:
        """Make it."""
        self.driver.call.volume_create(self.name, self.options)

    def mount(self) -> Path:
        """Mount it and return where."""
        return self.driver.call.volume_mount(self.name, self.options)

    def unmount(self) -> None:
        """Unmount it."""
        self.driver.call.volume_unmount(self.name, self.options)

    def remove(self) -> None:
        """Unmount and remove it."""
        self.unmount()
        self.driver.call.volume_remove(self.name, self.options)


class VolumeConformance(Conformance):
    """What every volume driver has to do; see ``drivetrain.volume``.

    Attributes:
        persistent: data is still there after an unmount; false for file systems in memory.
    """

    family = "volume"
    persistent: ClassVar[bool] = True

    def volume_options(self, name: str) -> Mapping[str, str]:
        """Return the strings of the options for the volume ``name``; called once for each."""
        return self.options

    def driver_root(self, tmp_path: Path) -> Path:
        """Return where the driver's directory is made; override it to choose the file system."""
        return tmp_path

    @pytest.fixture(autouse=True)
    def _opened(self, tmp_path: Path) -> Iterator[None]:
        self.root = self.driver_root(tmp_path) / "driver"
        self.root.mkdir(mode=0o711)
        self.volumes: list[Volume] = []
        self.instance = self.open()
        yield
        for volume in self.volumes:
            volume.remove()
        self.instance.call.volume_close()

    def open(self) -> Driver[VolumeHooks]:
        """Return a new instance at work in the same root, as after a start of the engine."""
        driver = self.new_driver()
        driver.call.volume_probe()
        driver.call.volume_open(self.root)
        return driver

    def volume(self, name: str = "data", given: Mapping[str, str] | None = None) -> Volume:
        """Return a volume that is removed after the check; it is not made yet."""
        chosen = self.volume_options(name) if given is None else given
        options = self.parsed(self.instance, "volume_options", chosen)
        volume = Volume(self.instance, name, options)
        self.volumes.append(volume)
        return volume

    def made(self, name: str = "data") -> Volume:
        """Return a volume that was made."""
        volume = self.volume(name)
        volume.create()
        return volume

    # what it says of itself

    def test_the_scope_is_local_or_global(self) -> None:
        assert self.instance.call.volume_traits().scope in ("local", "global")

    def test_options_have_unique_names_and_a_help(self) -> None:
        schema = self.instance.call.volume_options()
        names = [option.name for option in schema]
        assert len(set(names)) == len(names)
        assert all(option.help for option in schema if option.retired is None)

    def test_options_that_hold_secrets_are_masked(self) -> None:
        schema = self.instance.call.volume_options()
        for option in schema:
            if any(word in option.name for word in _SECRET_WORDS) and option.type == "string":
                assert masked(schema, {option.name: "hidden"}) == {option.name: "***"}

    def test_an_unknown_option_is_named(self) -> None:
        with pytest.raises(InvalidArgument, match="no-such-option"):
            self.parsed(self.instance, "volume_options", {"no-such-option": "1"})

    # making and mounting

    def test_making_a_volume_twice_is_fine(self) -> None:
        volume = self.made()
        volume.create()
        assert volume.mount().is_dir()

    def test_a_new_volume_is_an_empty_directory_at_an_absolute_path(self) -> None:
        path = self.made().mount()
        assert path.is_absolute()
        assert set(os.listdir(path)) <= {"lost+found"}

    def test_the_path_stays_the_same_while_mounted(self) -> None:
        volume = self.made()
        path = volume.mount()
        (path / "file").write_text("x")
        assert volume.mount() == path
        assert (path / "file").read_text() == "x"

    def test_one_unmount_undoes_repeated_mounts(self) -> None:
        volume = self.made()
        volume.mount()
        volume.mount()
        volume.unmount()
        volume.unmount()
        volume.driver.call.volume_remove(volume.name, volume.options)
        assert not _mounts_below(self.root)

    @needs("volume_path")
    def test_the_path_told_is_the_path_mounted(self) -> None:
        volume = self.made()
        told = self.instance.call.volume_path(volume.name, volume.options)
        path = volume.mount()
        assert told in (None, path)

    def test_files_keep_owner_and_permissions(self) -> None:
        path = self.made().mount() / "file"
        path.write_text("x")
        os.chown(path, 1234, 4321)
        path.chmod(0o640)
        found = path.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (1234, 4321, 0o640)

    def test_data_survives_unmount_and_a_new_start(self) -> None:
        volume = self.made()
        (volume.mount() / "file").write_text("kept")
        volume.unmount()
        self.instance.call.volume_close()
        self.instance = volume.driver = self.open()
        content = volume.mount() / "file"
        assert content.exists() == self.persistent
        assert not self.persistent or content.read_text() == "kept"

    def test_a_volume_stays_mounted_over_a_new_start(self) -> None:
        volume = self.made()
        path = volume.mount()
        (path / "file").write_text("kept")
        self.instance.call.volume_close()
        self.instance = volume.driver = self.open()
        assert volume.mount() == path
        assert (path / "file").read_text() == "kept"

    def test_volumes_are_apart(self) -> None:
        one, two = self.made("one").mount(), self.made("two").mount()
        (one / "file").write_text("1")
        assert one != two
        assert not (two / "file").exists()

    def test_volumes_can_be_mounted_at_once(self) -> None:
        volumes = [self.made(f"data{number}") for number in range(6)]
        paths: dict[str, Path] = {}
        faults: list[BaseException] = []

        def use(volume: Volume) -> None:
            try:
                paths[volume.name] = volume.mount()
                (paths[volume.name] / volume.name).write_text("x")
            except BaseException as error:
                faults.append(error)

        threads = [threading.Thread(target=use, args=(volume,)) for volume in volumes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not faults
        assert all((paths[name] / name).exists() for name in paths)
        assert len(set(paths.values())) == len(volumes)

    # removing

    def test_removing_takes_the_data_away(self) -> None:
        volume = self.made()
        path = volume.mount()
        (path / "folder").mkdir()
        (path / "folder" / "file").write_text("x")
        volume.remove()
        volume = self.made()
        assert "folder" not in os.listdir(volume.mount())

    def test_removing_what_does_not_exist_is_fine(self) -> None:
        volume = self.volume()
        volume.driver.call.volume_remove(volume.name, volume.options)

    def test_removing_does_not_follow_links_out_of_the_volume(self, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "file").write_text("x")
        volume = self.made()
        (volume.mount() / "link").symlink_to(outside)
        volume.remove()
        assert (outside / "file").exists()

    def test_a_failed_creation_leaves_nothing_behind(self) -> None:
        before = sorted(self.root.rglob("*"))
        for option in self.instance.call.volume_options():
            if option.type != "string" or option.name in self.volume_options("refused"):
                continue
            given = {**self.volume_options("refused"), option.name: "\x01impossible"}
            try:
                parsed = self.parsed(self.instance, "volume_options", given)
                self.instance.call.volume_create("refused", parsed)
            except EngineError:
                assert sorted(self.root.rglob("*")) == before
            else:
                self.instance.call.volume_remove("refused", parsed)

    # what only some drivers do

    @when(_has_option("size"))
    def test_a_size_is_enforced_or_refused(self) -> None:
        given = {**self.volume_options("small"), "size": "9m"}
        volume = self.volume("small", given)
        try:
            volume.create()
        except NotSupported as error:
            assert "size" in str(error)
            return
        with pytest.raises((OSError, Exhausted)), bound_by_quotas():
            (volume.mount() / "file").write_bytes(bytes(24 << 20))

    @when(_has_own_state)
    def test_the_list_has_the_volumes_made(self) -> None:
        self.made("one")
        self.made("two")
        names = {info.name for info in self.instance.call.volume_list()}
        assert {"one", "two"} <= names

    @needs("volume_usage")
    def test_usage_grows_with_the_data(self) -> None:
        volume = self.made()
        path = volume.mount()
        before = self.instance.call.volume_usage(volume.name, volume.options)
        (path / "file").write_bytes(os.urandom(1 << 20))
        os.sync()
        after = self.instance.call.volume_usage(volume.name, volume.options)
        assert before is None or after is None or after.size >= before.size + (1 << 20)

    @needs("volume_snapshot")
    def test_a_snapshot_keeps_what_was_and_can_be_repeated(self) -> None:
        volume = self.made()
        path = volume.mount()
        (path / "file").write_text("before")
        kept = self.volume("kept")
        for _ in range(2):
            self.instance.call.volume_snapshot(volume.name, "kept", volume.options)
        (path / "file").write_text("after")
        assert (kept.mount() / "file").read_text() == "before"

    @needs("volume_clone")
    def test_a_clone_has_the_content_and_goes_its_own_way(self) -> None:
        volume = self.made()
        path = volume.mount()
        (path / "file").write_text("first")
        copy = self.volume("copy")
        self.instance.call.volume_clone(volume.name, "copy", copy.options)
        cloned = copy.mount()
        assert (cloned / "file").read_text() == "first"
        (cloned / "file").write_text("second")
        assert (path / "file").read_text() == "first"


def _mounts_below(root: Path) -> list[str]:
    from drivetrain.host.mounts import mount_table

    return [entry.target for entry in mount_table() if entry.target.startswith(f"{root}/")]
