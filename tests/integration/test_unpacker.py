"""Layers are unpacked as they were packed, by whichever tar; damaged ones end with an error."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile
from pathlib import Path

import pytest

from drivetrain.errors import Internal, InvalidArgument
from drivetrain.testing.entries import describe, every_kind
from drivetrain.testing.filesystems import run
from drivetrain_engine.content import LayerStream
from drivetrain_engine.content.layout import digest_of
from drivetrain_engine.layers import archive
from drivetrain_engine.layers.unpacking import unpack
from drivetrain_engine.unpacker.archive import Archive

#: Formats of GNU's tar, and what it is told beside them.
FORMATS = {
    "gnu": ("--format=gnu",),
    "gnu, holes": ("--format=gnu", "-S"),
    "oldgnu, holes": ("--format=oldgnu", "-S"),
    "ustar": ("--format=ustar",),
    "v7": ("--format=v7",),
    "pax": ("--format=pax", "--xattrs", "--xattrs-include=*"),
    "pax, holes 0.0": ("--format=pax", "-S", "--sparse-version=0.0"),
    "pax, holes 0.1": ("--format=pax", "-S", "--sparse-version=0.1"),
    "pax, holes 1.0": ("--format=pax", "-S", "--sparse-version=1.0"),
    "numbers": ("--format=gnu", "--owner=:3000000000", "--group=:3000000001"),
    "global": ("--format=pax", "--pax-option=globexthdr.name=g,comment=c,mtime=1000.5"),
}


def extract(data: bytes, target: Path, digest: str = "") -> Path:
    target.mkdir(exist_ok=True)
    blob = target.with_name(f"{target.name}.blob")
    blob.write_bytes(data)
    file = open(blob, "rb", buffering=0)
    with LayerStream(file, digest or digest_of(data)) as stream, open(os.devnull) as lock:
        unpack(stream, target, "layer", lock.fileno())
    return target


def simple_tree(root: Path) -> None:
    """Make what every format of tar can hold."""
    for name, size in (("a", 0), ("b", 1), ("c", 511), ("d", 512), ("e", 513), ("f", 700_000)):
        (root / name).write_bytes(random.Random(size).randbytes(size))
    (root / "folder").mkdir(mode=0o2775)
    os.chown(root / "folder", 1, 2)
    (root / "folder" / "file").write_text("not of the folder's group")
    os.chown(root / "folder" / "file", 0, 0)
    (root / "setuid").write_text("x")
    os.chown(root / "setuid", 3, 4)
    (root / "setuid").chmod(0o4711)
    (root / "symbolic").symlink_to("a")
    os.link(root / "e", root / "folder" / "e")
    os.mkfifo(root / "fifo")
    with (root / "holes").open("wb") as file:
        for number in range(40):  # more than one block of a map
            file.seek(number << 16)
            file.write(b"%d" % number)
        file.truncate(3 << 20)
    (root / "hole").touch()
    os.truncate(root / "hole", 2 << 20)


def long_names(root: Path) -> None:
    folder = root / ("d" * 120) / ("e" * 120)
    folder.mkdir(parents=True)
    (folder / ("f" * 200)).write_text("far down")
    (folder / "g").symlink_to("h" * 300)
    os.link(folder / ("f" * 200), root / "near")


@pytest.mark.parametrize("chosen", FORMATS)
def test_what_other_tars_pack_is_unpacked_as_it_was(tmp_path, chosen):
    source = tmp_path / "source"
    source.mkdir()
    simple_tree(source)
    if chosen not in ("ustar", "v7"):
        long_names(source)
    if chosen == "v7":
        (source / "fifo").unlink()
    for path in (source, *source.rglob("*")):
        os.utime(path, ns=(0, 10**18), follow_symlinks=False)
    if chosen == "pax":
        os.setxattr(source / "a", "user.note", b"a\0b\n\xff")
        os.utime(source / "a", ns=(0, 10**18 + 123_456_789))
    run("tar", *FORMATS[chosen], "-cf", str(tmp_path / "tar"), "-C", str(source), ".")
    found = describe(extract((tmp_path / "tar").read_bytes(), tmp_path / "out"))
    wanted = describe(source)
    for name in wanted:
        if chosen == "numbers":
            wanted[name]["owner"] = (3_000_000_000, 3_000_000_001)
        if chosen == "global":
            wanted[name]["modified"] = 1_000_500_000_000
        wanted[name].pop("sparse", None)
        sparse = found[name].pop("sparse", None)
        if "holes" in chosen and name in (b"hole", b"holes"):
            assert sparse
    assert found == wanted


@pytest.mark.parametrize("reader", ["ours", "GNU's tar"])
def test_what_we_pack_is_unpacked_as_it_was(tmp_path, reader):
    """Of every kind of entry but sockets, which no tar has."""
    source = tmp_path / "source"
    source.mkdir()
    every_kind(source, odd_entries=False)
    (source / "socket").unlink()
    os.truncate(source / "sparse", 9 << 20)
    long_names(source)
    os.chown(source / "near", 3_000_000_000, 1 << 21)
    os.utime(source / "empty", ns=(0, -1_500_000_000))
    packed = b"".join(archive.tree(source))
    if reader == "ours":
        extract(packed, tmp_path / "out")
    else:
        (tmp_path / "out").mkdir()
        (tmp_path / "packed").write_bytes(packed)
        run("tar", "--xattrs", "--xattrs-include=*", "--same-owner", "-xpf",
            str(tmp_path / "packed"), "-C", str(tmp_path / "out"))  # fmt: skip
    wanted, found = describe(source), describe(tmp_path / "out")
    for described in (wanted, found):
        del described[b"."]
        described[b"sparse"].pop("sparse")
        described[b"sparse"].pop("modified")
    assert found == wanted


def test_an_entry_takes_the_place_of_whatever_was_there(tmp_path):
    out = tmp_path / "out"
    (out / "was a folder" / "with" / "more").mkdir(parents=True)
    (out / "was a folder" / "file").touch()
    (out / "was a file").touch()
    (out / "was a link").symlink_to("/")
    (out / "gone" / "below").mkdir(parents=True)
    (out / "opaque" / "old").mkdir(parents=True)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as made:
        for name, kind in (
            ("was a folder", tarfile.REGTYPE),
            ("was a file", tarfile.DIRTYPE),
            ("was a link", tarfile.DIRTYPE),
            ("was a link/file", tarfile.REGTYPE),
            (".wh.gone", tarfile.REGTYPE),
            ("gone/again", tarfile.REGTYPE),
            ("opaque/new", tarfile.REGTYPE),
            ("opaque/.wh..wh..opq", tarfile.REGTYPE),
            ("twice", tarfile.DIRTYPE),
            ("twice/below", tarfile.DIRTYPE),
            ("twice", tarfile.REGTYPE),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = kind, 0o755
            made.addfile(entry)
    extract(data.getvalue(), out)
    left = sorted(str(path.relative_to(out)) for path in out.rglob("*"))
    assert left == [
        "gone", "gone/again", "opaque", "opaque/new", "twice", "was a file", "was a folder",
        "was a link", "was a link/file",
    ]  # fmt: skip
    assert (out / "twice").is_file()
    assert (out / "was a folder").is_file()
    assert not (out / "was a link").is_symlink()


def test_nothing_outside_is_reached(tmp_path):
    (tmp_path / "victim").write_text("untouched")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as made:
        for name, link in (
            ("out", str(tmp_path)), ("up", "../.."), ("../victim", None), ("out/victim", None),
            ("up/victim", None), (f"{tmp_path}/victim", None), ("/victim", None),
        ):  # fmt: skip
            entry = tarfile.TarInfo(name)
            if link is not None:
                entry.type, entry.linkname = tarfile.SYMTYPE, link
            entry.size = 0 if link else 4
            made.addfile(entry, io.BytesIO(b"evil"))
    with pytest.raises(Internal):  # the link leads nowhere, seen from inside
        extract(data.getvalue(), tmp_path / "layer")
    assert (tmp_path / "victim").read_text() == "untouched"


def test_a_layer_whose_content_changed_on_disk_is_refused(tmp_path):
    data = b"".join(archive.tree(Path("/etc/apt")))
    with pytest.raises(Internal, match="is damaged"):
        extract(data, tmp_path / "out", digest_of(b"another"))


@pytest.mark.parametrize("damage", ["short", "empty", "no tar", "header"])
def test_a_damaged_archive_is_named_and_why(tmp_path, damage):
    source = tmp_path / "source"
    source.mkdir()
    simple_tree(source)
    whole = b"".join(archive.tree(source))
    data, why = {
        "short": (whole[:100_000], "ends within an entry"),
        "empty": (b"", "is empty"),
        "no tar": (b"<html>" * 1000, "is damaged"),
        "header": (whole[:20] + b"x" + whole[21:], "is damaged"),
    }[damage]
    with pytest.raises(InvalidArgument, match=f"layer is not a valid archive: .*{why}"):
        extract(data, tmp_path / "out")


def test_reading_an_archive_ends_whatever_is_in_it(tmp_path):
    """Headers with random faults and right checksums: an error, never an endless loop."""
    simple = tmp_path / "simple"
    simple.mkdir()
    simple_tree(simple)
    os.truncate(simple / "f", 1000)
    chance = random.Random(1)
    for number, options in enumerate(FORMATS.values()):
        whole = subprocess.run(
            ["tar", *options, "-cf", "-", "-C", str(simple), "."], capture_output=True
        ).stdout
        for _ in range(150):
            data = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                at = chance.randrange(len(data) // 512) * 512
                data[at + chance.randrange(512)] = chance.choice(b"\0\xff\x80-0179 =\nxgLKS")
                data[at + 148 : at + 156] = b" " * 8
                data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
            del data[chance.randrange(len(data)) if number % 3 == 0 else len(data) :]
            descriptor = os.memfd_create("archive")
            try:
                os.write(descriptor, data)
                os.lseek(descriptor, 0, os.SEEK_SET)
                for _, content in Archive(descriptor).entries():
                    for _ in content:
                        pass
            except ValueError:
                pass
            finally:
                os.close(descriptor)
