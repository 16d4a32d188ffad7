"""The overlay2 driver keeps to the contract."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from drivetrain.errors import FailedPrecondition, NotSupported
from drivetrain.host import mounts
from drivetrain.testing.storage import StorageConformance


class TestOverlay2(StorageConformance):
    driver = "overlay2"

    def test_what_is_kept_is_written_out(self) -> None:
        self.filled("a", file="x")
        for entry in self.instance.call.layer_mounts(self.create("b", ["a"]), ("a",), False):
            assert ("volatile" in entry.options) == (self.use == "throwaway")

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


class TestOverlay2Throwaway(TestOverlay2):
    """All checks again, with mounts that are told not to write out what nobody needs."""

    use = "throwaway"

    def test_its_mounts_are_volatile_and_can_be_made_again(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"])
        for _ in range(2):
            with self.mounted("b") as root:
                table = {entry.target: entry.super_options for entry in mounts.mount_table()}
                assert any("volatile" in option for option in table[str(root)])
                (root / "more").touch()

    test_128_parents_are_stacked_and_one_more_is_refused = None  # type: ignore[assignment]


def test_in_a_user_namespace_attributes_of_users_are_used(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from drivetrain_storage_overlay2.features import probe\n"
        "found = probe(Path(sys.argv[1]))\n"
        "print('userxattr' in found.options, found.prefix, found.native_diff)"
    )
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", program]
    done = subprocess.run([*command, tmp_path], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "user.overlay.", "True"], done.stderr
