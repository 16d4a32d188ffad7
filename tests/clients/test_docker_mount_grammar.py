"""All that docker's client has for ``-v``, ``--mount`` and ``--tmpfs``, as containers see it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unixapi import Api

from drivetrain.host import mounts
from drivetrain.storage import Mount
from drivetrain.testing.hosts import Host


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A directory with a file, and a file system mounted below it."""
    (tmp_path / "file").write_text("here\n")
    (tmp_path / "below").mkdir()
    mounts.mount((Mount("tmpfs", "tmpfs"),), tmp_path / "below")
    yield tmp_path
    mounts.unmount(tmp_path / "below")


@pytest.fixture(autouse=True)
def _no_volumes(host: Host) -> Iterator[None]:
    yield
    host.clear()
    left = host.docker("volume", "ls", "-q").stdout.split()
    if left:
        host.docker("volume", "rm", *left)


def run(host: Host, flags: list[str], command: str) -> str:
    return host.docker(
        "run", "--rm", "--network", "none", *flags, "busybox", "sh", "-c", command
    ).stdout


#: Tells where a mount can be written: at its top, and at the mount below it.
WRITES = "for d in /v /v/below; do touch $d/x 2>/dev/null && echo -n y || echo -n n; done"


@pytest.mark.parametrize(
    ("flags", "written"),
    [
        ("-v {}:/v", "yy"),
        ("-v {}:/v:rw", "yy"),
        ("-v {}:/v:ro", "nn"),
        ("-v {}:/v:z", "yy"),
        ("-v {}:/v:Z", "yy"),
        ("-v {}:/v:ro,z", "nn"),
        ("-v {}:/v:Z,ro,rslave", "nn"),
        ("-v {}:/v:consistent", "yy"),
        ("-v {}:/v:cached,ro", "nn"),
        ("-v {}:/v:delegated", "yy"),
        ("-v {}:/v:rshared", "yy"),
        ("--mount type=bind,source={},target=/v", "yy"),
        ("--mount type=bind,src={},dst=/v,readonly", "nn"),
        ("--mount type=bind,src={},destination=/v,ro", "nn"),
        ("--mount type=bind,src={},dst=/v,readonly=true", "nn"),
        ("--mount type=bind,src={},dst=/v,readonly=false", "yy"),
        ("--mount type=bind,src={},dst=/v,consistency=cached", "yy"),
        ("--mount type=bind,src={},dst=/v,consistency=delegated,ro", "nn"),
        ("--mount type=bind,src={},dst=/v,bind-propagation=rslave", "yy"),
        ("--mount type=bind,src={},dst=/v,bind-propagation=private,ro", "nn"),
        ("--mount type=bind,src={},dst=/v,ro,bind-recursive=enabled", "nn"),
        ("--mount type=bind,src={},dst=/v,ro,bind-recursive=writable", "ny"),
        (
            "--mount type=bind,src={},dst=/v,ro,bind-recursive=readonly,bind-propagation=rprivate",
            "nn",
        ),
    ],
)
def test_a_bind_mount_may_be_written_where_its_words_say(
    host: Host, tree: Path, flags: str, written: str
) -> None:
    if "shared" in flags:
        mounts.mount((Mount("rbind", str(tree), ("rbind", "rshared")),), tree)
    try:
        assert run(host, flags.format(tree).split(), f"cat /v/file; {WRITES}") == (
            f"here\n{written}"
        )
        assert (tree / "x").exists() == (written[0] == "y")
        assert (tree / "below" / "x").exists() == (written[1] == "y")
    finally:
        if "shared" in flags:
            mounts.unmount(tree)


@pytest.mark.parametrize("words", ["bind-recursive=disabled", "bind-nonrecursive=true"])
def test_a_bind_mount_leaves_out_what_is_mounted_below(host: Host, tree: Path, words: str) -> None:
    (tree / "below" / "hidden").touch()
    mount = f"type=bind,src={tree},dst=/v,{words}"
    assert run(host, ["--mount", mount], "cat /v/file; ls /v/below") == "here\n"


def test_a_missing_source_is_made_for_v_and_for_who_asks(host: Host, tree: Path) -> None:
    run(host, ["-v", f"{tree}/made/deep:/v"], "touch /v/x")
    assert (tree / "made" / "deep" / "x").exists()
    body = {
        "Image": "busybox",
        "Cmd": ["touch", "/v/x"],
        "HostConfig": {
            "NetworkMode": "none",
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": f"{tree}/asked",
                    "Target": "/v",
                    "BindOptions": {"CreateMountpoint": True},
                }
            ],
        },
    }
    status, made = Api(host.socket).ask("POST", "/v1.50/containers/create", body)
    assert status == 201
    host.docker("start", "-a", made["Id"])
    assert (tree / "asked" / "x").exists()


def test_inspect_shows_the_mode_as_it_was_written(host: Host, tree: Path) -> None:
    host.docker("create", "--name", "shown", "-v", f"{tree}:/a:ro,Z", "-v", "data:/b:z", "busybox")
    shown = json.loads(host.docker("inspect", "-f", "{{json .Mounts}}", "shown").stdout)
    found = {one["Destination"]: (one["Type"], one["Mode"], one["RW"]) for one in shown}
    assert found == {"/a": ("bind", "ro,Z", False), "/b": ("volume", "z", True)}


# volumes


@pytest.mark.parametrize("how", ["--mount", "-v"])
def test_a_volume_is_made_as_its_mount_says(host: Host, how: str) -> None:
    if how == "-v":
        flags = ["--volume-driver", "tmpfs", "-v", "data:/v"]
    else:
        words = "type=volume,src=data,dst=/v,volume-driver=local,volume-label=a=b"
        options = "volume-opt=type=tmpfs,volume-opt=device=tmpfs"
        flags = ["--mount", f'{words},{options},"volume-opt=o=size=1m,mode=0750"']
    assert " tmpfs " in run(host, flags, "grep ' /v ' /proc/mounts")
    shown = json.loads(host.docker("volume", "inspect", "data").stdout)[0]
    if how == "-v":
        assert shown["Driver"] == "tmpfs"
    else:
        assert (shown["Driver"], shown["Labels"]) == ("local", {"a": "b"})
        assert shown["Options"] == {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=0750"}


@pytest.mark.parametrize(
    ("flags", "copied", "written"),
    [
        ("-v data:/etc", True, True),
        ("-v data:/etc:ro", True, False),
        ("-v data:/etc:nocopy", False, True),
        ("-v data:/etc:nocopy,ro,z", False, False),
        ("-v /etc", True, True),
        ("--mount type=volume,src=data,dst=/etc", True, True),
        ("--mount src=data,dst=/etc,volume-nocopy", False, True),
        ("--mount src=data,dst=/etc,volume-nocopy=false,ro", True, False),
        ("--mount dst=/etc", True, True),
    ],
)
def test_a_volume_gets_the_files_of_the_image_unless_told_not_to(
    host: Host, flags: str, copied: bool, written: bool
) -> None:
    script = "test -s /etc/passwd && echo copied; touch /etc/x 2>/dev/null && echo written"
    said = run(host, flags.split(), f"{script}; true").split()
    assert said == ["copied"] * copied + ["written"] * written
    assert ("data" in flags) == ("data" in host.docker("volume", "ls", "-q").stdout)


def test_a_directory_of_a_volume_is_mounted_alone(host: Host) -> None:
    run(host, ["-v", "data:/v"], "mkdir -p /v/a/b; echo in > /v/a/b/f; echo out > /v/f")
    mount = "type=volume,src=data,dst=/v,volume-subpath=a/b"
    assert run(host, ["--mount", mount], "ls /v; cat /v/f") == "f\nin\n"
    assert "ro" in run(host, ["--mount", f"{mount},ro"], "grep ' /v ' /proc/mounts").split()[3]
    missing = host.docker("run", "--rm", "--mount", f"{mount}/none", "busybox", "true", check=False)
    assert missing.returncode != 0


def test_several_containers_share_a_volume(host: Host) -> None:
    writer = host.docker(
        "run", "-d", "--network", "none", "-v", "data:/w", "busybox",
        "sh", "-c", "echo first > /w/f; sleep 1000",
    ).stdout.strip()  # fmt: skip
    read = "until test -s /r/f; do sleep 0.1; done; cat /r/f"
    assert run(host, ["-v", "data:/r:ro"], read) == "first\n"
    assert run(host, ["--volumes-from", f"{writer}:ro"], "cat /w/f; touch /w/x || echo no") == (
        "first\nno\n"
    )
    assert run(host, ["--volumes-from", writer], "echo more >> /w/f; cat /w/f") == "first\nmore\n"


@pytest.mark.parametrize("ending", ["run --rm", "rm -v", "rm"])
def test_anonymous_volumes_go_only_with_who_takes_them_along(host: Host, ending: str) -> None:
    flags = ["-v", "/one", "--mount", "dst=/two", "-v", "named:/three"]
    if ending == "run --rm":
        run(host, flags, "touch /one/x /two/x /three/x")
    else:
        host.docker("create", "--name", "box", *flags, "busybox")
        host.docker(*ending.split(), "box")
    left = host.docker("volume", "ls", "-q").stdout.split()
    assert "named" in left
    assert len(left) == (3 if ending == "rm" else 1)


# tmpfs and images


@pytest.mark.parametrize(
    ("flags", "mode", "kilobytes"),
    [
        ("--tmpfs /t", "1777", None),
        ("--tmpfs /t:size=2m,mode=0700,noexec,uid=7", "700", 2048),
        ("--mount type=tmpfs,dst=/t", "1777", None),
        ("--mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=0750", "750", 1024),
        ("--mount type=tmpfs,destination=/t,tmpfs-size=1048576,ro", "1777", 1024),
    ],
)
def test_a_tmpfs_has_the_size_and_mode_it_was_given(
    host: Host, flags: str, mode: str, kilobytes: int | None
) -> None:
    script = "stat -c %a /t; grep ' /t tmpfs ' /proc/mounts"
    said = run(host, flags.split(), script).splitlines()
    assert said[0] == mode
    options = said[1].split()[3].split(",")
    assert ("ro" in options) == flags.endswith(",ro")
    assert {"noexec", "nosuid", "nodev"} <= set(options)
    if kilobytes:
        assert f"size={kilobytes}k" in options
    if "uid" in flags:
        assert "uid=7" in options


def test_an_image_is_mounted_read_only(host: Host) -> None:
    said = run(
        host, ["--mount", "type=image,src=busybox,dst=/i"], "ls /i/bin/sh; touch /i/x; echo $?"
    )
    assert said == "/i/bin/sh\n1\n"
    part = "type=image,src=busybox,dst=/i,image-subpath=bin"
    assert run(host, ["--mount", part], "ls /i/sh") == "/i/sh\n"


# what the local driver mounts


@pytest.fixture
def block_device(tmp_path: Path) -> Iterator[str]:
    """A loop device with ext4 on it that nobody has mounted."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    made = subprocess.run(
        ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True
    )
    yield made.stdout.strip()
    subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


@pytest.mark.parametrize("kind", ["tmpfs", "bind", "none", "ext4", "overlay"])
def test_the_local_driver_mounts_what_it_is_given(
    host: Host, tmp_path: Path, block_device: str, kind: str
) -> None:
    for name in ("lower", "upper", "work", "source"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "below").write_text("below\n")
    layers = ",".join(f"{key}dir={tmp_path}/{key}" for key in ("lower", "upper", "work"))
    device, words, seen = {
        "tmpfs": ("tmpfs", "size=1m,uid=7", "tmpfs"),
        "bind": (f"{tmp_path}/source", "bind", ""),
        "none": (f"{tmp_path}/source", "rbind", ""),
        "ext4": (block_device, "noatime", "ext4"),
        "overlay": ("overlay", layers, "overlay"),
    }[kind]
    options = (f"type={kind}", f"device={device}", f"o={words}")
    host.docker("volume", "create", *(f"--opt={option}" for option in options), "data")
    shown = run(host, ["-v", "data:/v"], "echo kept > /v/file; grep ' /v ' /proc/mounts").split()
    assert not seen or shown[2] == seen
    again = run(host, ["-v", "data:/v"], "cat /v/* 2>/dev/null; true")
    assert again == {"tmpfs": "", "overlay": "below\nkept\n"}.get(kind, "kept\n")
    if kind in ("bind", "none"):
        assert (tmp_path / "source" / "file").read_text() == "kept\n"
    if kind == "overlay":
        assert (tmp_path / "upper" / "file").exists()
        assert not (tmp_path / "lower" / "file").exists()
    assert not [place for place in host.mounts() if "/volumes/" in place]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("type=ext4", "device=/dev/no-such-device"), "mount /dev/no-such-device (ext4)"),
        (("type=none", "device=/no/such/directory", "o=bind"), "mount /no/such/directory (none)"),
        (("type=nosuchfs", "device=x"), "mount x (nosuchfs)"),
        (
            ("type=cifs", "device=//127.0.0.1/x", "o=username=me,password=geheim"),
            "mount //127.0.0.1/x (cifs)",
        ),
    ],
)
def test_what_cannot_be_mounted_is_named_without_its_password(
    host: Host, options: tuple[str, ...], reason: str
) -> None:
    host.docker("volume", "create", *(f"--opt={option}" for option in options), "data")
    failed = host.docker("run", "--rm", "-v", "data:/v", "busybox", "true", check=False)
    assert failed.returncode == 125
    assert f"failed to mount local volume data: {reason}" in failed.stderr
    inspected = host.docker("volume", "inspect", "data").stdout
    for text in (failed.stderr, inspected, host.log.read_text()):
        assert "geheim" not in text


def test_a_password_in_a_mount_is_shown_by_no_command(host: Host) -> None:
    words = "type=volume,src=data,dst=/v,volume-opt=type=cifs,volume-opt=device=//127.0.0.1/x"
    mount = f'{words},"volume-opt=o=username=me,password=geheim"'
    host.docker("create", "--name", "box", "--mount", mount, "busybox")
    for _ in range(2):
        shown = host.docker("inspect", "box").stdout
        assert "geheim" not in shown and "username=me,password=***" in shown
    for command in (("volume", "inspect", "data"), ("system", "df", "-v"), ("start", "box")):
        done = host.docker(*command, check=False)
        assert "geheim" not in done.stdout + done.stderr
    # what is shown is not what is kept
    again = host.docker("create", "--mount", mount, "busybox")
    assert again.returncode == 0
    assert "geheim" not in host.log.read_text()
