"""Layers on layers: deletions, renames and links over a chain of parents."""

from __future__ import annotations

import errno
import os
import random
import shutil
import stat
from pathlib import Path

from drivetrain.testing.entries import describe
from drivetrain.testing.storage.kit import StorageKit


class Stacks(StorageKit):
    """Checks of chains."""

    def test_a_deleted_file_stays_deleted_in_children(self) -> None:
        self.filled("a", file="x")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            (root / "file").unlink()
        self.commit("b")
        with self.mounted(self.create("c", ["b", "a"])) as root:
            assert not (root / "file").exists()
            (root / "file").write_text("again")
            assert (root / "file").read_text() == "again"

    def test_a_deleted_directory_stays_deleted_in_children(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            (root / "folder" / "inner").mkdir(parents=True)
            (root / "folder" / "inner" / "file").touch()
        self.commit("a")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            shutil.rmtree(root / "folder")
        self.commit("b")
        with self.mounted(self.create("c", ["b", "a"])) as root:
            assert not (root / "folder").exists()

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

    def test_an_entry_may_change_its_type(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            (root / "one").write_text("a file")
            (root / "two").mkdir()
            (root / "two" / "inner").touch()
            (root / "three").symlink_to("two")
        self.commit("a")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            (root / "one").unlink()
            (root / "one").mkdir()
            shutil.rmtree(root / "two")
            (root / "two").write_text("now a file")
            (root / "three").unlink()
            (root / "three").mkdir()
        self.commit("b")
        with self.mounted(self.create("c", ["b", "a"])) as root:
            assert os.listdir(root / "one") == []
            assert (root / "two").read_text() == "now a file"
            assert (root / "three").is_dir() and not (root / "three").is_symlink()

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

    def test_several_names_of_a_file_stay_one_file_in_children(self) -> None:
        self.create("a")
        with self.mounted("a") as root:
            (root / "folder").mkdir()
            (root / "one").write_text("x")
            os.link(root / "one", root / "folder" / "two")
        self.commit("a")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            assert os.path.samefile(root / "one", root / "folder" / "two")
            (root / "own").write_text("y")
            os.link(root / "own", root / "folder" / "own")
        self.commit("b")
        with self.mounted(self.create("c", ["b", "a"])) as root:
            assert os.path.samefile(root / "one", root / "folder" / "two")
            assert os.path.samefile(root / "own", root / "folder" / "own")

    def test_a_file_of_the_parent_gets_one_more_name(self) -> None:
        self.filled("a", one="x")
        self.create("b", ["a"])
        with self.mounted("b") as root:
            os.link(root / "one", root / "two")
            assert os.path.samefile(root / "one", root / "two")
        self.commit("b")
        with self.mounted(self.create("c", ["b", "a"])) as root:
            assert os.path.samefile(root / "one", root / "two")
            assert (root / "two").read_text() == "x"

    def test_as_many_layers_as_the_engine_stacks_equal_the_flat_tree(self) -> None:
        parents: tuple[str, ...] = ()
        expected: dict[str, str] = {}
        for number in range(self.depth):
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

    def test_random_edits_over_layers_give_the_tree_of_a_plain_directory(self) -> None:
        plain = self.base / "plain"
        plain.mkdir()
        parents: tuple[str, ...] = ()
        for number in range(5):
            key = f"layer{number}"
            self.create(key, parents)
            with self.mounted(key) as root:
                edit(root, random.Random(number), links=False)
            edit(plain, random.Random(number), links=False)
            self.commit(key)
            parents = (key, *parents)
        with self.mounted(self.create("top", parents)) as root:
            assert _timeless(root) == _timeless(plain)


def _timeless(root: Path) -> dict[bytes, object]:
    described = describe(root)
    del described[b"."]
    for entry in described.values():
        del entry["modified"]
    return described


def edit(root: Path, chance: random.Random, rounds: int = 80, *, links: bool = True) -> None:
    """Do what programs do to files: make, write, chmod, link, rename, remove, replace.

    Args:
        root: of the tree.
        chance: decides what.
        rounds: how many deeds.
        links: give files several names; a write may part them again, as overlayfs is known to do.
    """
    deeds = ("write", "write", "folder", "rename", "remove", "mode", *(("link",) if links else ()))
    # Walked once and kept up to date: a walk for each deed takes most of a check's time.
    folders, files = _entries(root)
    for _ in range(rounds):
        place = chance.choice(folders) / f"n{chance.randrange(12)}"
        deed, text = chance.choice(deeds), str(chance.random())
        old = chance.choice(files) if files else None
        if deed == "write" and not place.is_dir():
            place.write_text(text)
        elif deed == "folder" and not place.exists() and len(place.parts) < len(root.parts) + 5:
            place.mkdir()
            folders.append(place)
        elif deed == "link" and old and not place.exists():
            os.link(old, place)
        elif deed == "rename" and old and not place.is_dir():
            old.rename(place)
            if not old.exists():  # it is, when both were names of one file
                files.remove(old)
        elif deed == "mode" and old:
            old.chmod(chance.choice((0o600, 0o644, 0o755)))
        elif deed == "remove" and place.is_dir():
            shutil.rmtree(place)
            folders = [path for path in folders if not path.is_relative_to(place)]
            files = [path for path in files if not path.is_relative_to(place)]
        elif deed == "remove" and place.exists():
            place.unlink()
            files.remove(place)
        if deed in ("write", "link", "rename") and place not in files and place.is_file():
            files.append(place)


def _entries(root: Path) -> tuple[list[Path], list[Path]]:
    """Return the directories and the regular files of a tree, in a certain order."""
    folders, files = [root], []
    for folder, below, names in os.walk(root):
        below[:] = sorted(name for name in below if name != "lost+found")
        folders += [Path(folder, name) for name in below]
        places = [Path(folder, name) for name in sorted(names)]
        files += [path for path in places if stat.S_ISREG(path.lstat().st_mode)]
    return folders, files
