"""The overlay2 driver keeps to the contract."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drivetrain.errors import FailedPrecondition, NotSupported
from drivetrain.testing.storage import StorageConformance


class TestOverlay2(StorageConformance):
    driver = "overlay2"

    def test_128_parents_are_stacked_and_one_more_is_refused(self) -> None:
        parents: tuple[str, ...] = ()
        for number in range(128):
            parents = (self.filled(f"p{number}", parents, **{f"f{number}": "x"}), *parents)
        with self.mounted(self.create("top", parents)) as root:
            assert len(os.listdir(root)) == 128
        self.filled("p128", parents)
        with pytest.raises(FailedPrecondition, match="128"):
            self.create("over", ("p128", *parents))
        self.instance.call.layer_remove("over")

    def test_a_file_system_that_cannot_hold_it_is_said(self) -> None:
        with self.mounted(self.create("a")) as root, pytest.raises(NotSupported, match="overlay"):
            self.filled("p", ())
            self.create("b", ["p"])
            with self.mounted("b") as inner:
                del root
                # An overlay whose upper directory is on an overlay is what the kernel refuses.
                (inner / "root").mkdir()
                self.new_driver().call.storage_probe(Path(inner / "root"))
