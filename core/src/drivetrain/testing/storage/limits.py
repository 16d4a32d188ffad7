"""Options, sizes, and what a driver says of itself."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

import pytest

from drivetrain.calling import Driver
from drivetrain.errors import EngineError, InvalidArgument, NotSupported
from drivetrain.options import parse_options
from drivetrain.storage import StorageHooks
from drivetrain.testing.base import when
from drivetrain.testing.storage.kit import StorageKit


def _has_size(driver: Driver[StorageHooks]) -> bool:
    return any(option.name == "size" for option in driver.call.layer_options())


class Limits(StorageKit):
    """Checks of options and limits."""

    def test_an_unknown_option_is_named(self) -> None:
        for schema in (self.instance.call.layer_options(), self.instance.call.storage_options()):
            with pytest.raises(InvalidArgument, match="sise"):
                parse_options("storage", schema, {"sise": "1G"})

    def test_every_option_says_what_it_is_for(self) -> None:
        call = self.instance.call
        for option in (*call.layer_options(), *call.storage_options()):
            assert option.help or option.retired, option.name

    @when(_has_size)
    def test_a_size_limits_the_layer_or_is_refused(self) -> None:
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

    @when(_has_size)
    def test_a_full_layer_harms_no_other(self) -> None:
        self.filled("a", file="x")
        try:
            self.create("b", ["a"], size="64m")
        except NotSupported as error:
            assert "size" in str(error)
            return
        self.create("c", ["a"])
        with self.mounted("b") as full, self.mounted("c") as other:
            with contextlib.suppress(OSError), (full / "big").open("wb") as file:
                for _ in range(80):
                    file.write(os.urandom(1 << 20))
                    file.flush()
            (other / "file").write_text("written")
            assert (other / "file").read_text() == "written"
        self.remove("b")
        with self.mounted(self.create("b", ["a"], size="64m")) as root:
            (root / "small").write_text("fits again")

    def test_the_probe_leaves_its_root_as_it_was(self) -> None:
        with tempfile.TemporaryDirectory(dir=self.root.parent) as folder:
            place = self.root.parent / Path(folder).name
            with contextlib.suppress(EngineError):
                self.new_driver().call.storage_probe(place)
            assert list(place.iterdir()) == []

    def test_status_is_pairs_of_text(self) -> None:
        for name, value in self.instance.call.storage_status():
            assert name and isinstance(value, str)
