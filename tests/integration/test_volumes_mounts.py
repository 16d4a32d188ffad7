"""Mounts as containers see them: owners, propagation, read-only, subpaths, links that lead out."""

import subprocess
from pathlib import Path

import pytest

from drivetrain.host import mounts
from drivetrain.storage import Mount
from drivetrain.testing.hosts import Host


@pytest.fixture(scope="module")
def host():
    with Host() as host:
        host.start("--storage-driver", "vfs")
        host.load_busybox()
        yield host


@pytest.fixture
def tree(tmp_path):
    """A directory that is a shared mount, with another mount below it."""
    mounts.mount((Mount("tmpfs", "tmpfs", ("shared",)),), tmp_path)
    (tmp_path / "below").mkdir()
    mounts.mount((Mount("tmpfs", "tmpfs"),), tmp_path / "below")
    yield tmp_path
    for entry in reversed(mounts.mount_table()):
        if Path(entry.target).is_relative_to(tmp_path):
            mounts.unmount(Path(entry.target))


def run(host, mount, command, *flags, client="engine", check=True):
    start = host.engine if client == "engine" else host.docker
    return start("run", "--rm", "--network=none", *flags, *mount, "busybox", "sh", "-c", command,
                 check=check)  # fmt: skip


# owners


@pytest.mark.parametrize("kind", ["bind", "volume"])
def test_files_belong_to_whom_the_container_says(host, tree, kind):
    source = tree / "files"
    source.mkdir()
    source.chmod(0o777)
    (source / "theirs").touch()
    subprocess.run(["chown", "-R", "1000:1001", source], check=True)
    name = str(source)
    if kind == "volume":
        name = "mapped"
        host.engine("volume", "create", "-o", "type=none", "-o", f"device={source}",
                    "-o", "o=bind", "mapped")  # fmt: skip
    mount = f"type={kind},src={name},dst=/v,idmap=uids=1000-0-1;gids=1001-0-1"
    done = run(host, ["--mount", mount], "stat -c %u:%g /v/theirs; echo x > /v/new")
    assert done.stdout == "0:0\n"
    found = (source / "new").stat()
    assert (found.st_uid, found.st_gid) == (1000, 1001)
    assert not [one for one in host.mounts() if "/mapped/" in one]
    if kind == "volume":
        host.engine("volume", "rm", "mapped")


@pytest.mark.parametrize("idmap", ["1000", "uids=1-2", "uids=0-0-0", "uids=0-0-1;uids=0-0-1"])
def test_an_idmap_that_is_none_is_refused(host, tree, idmap):
    mount = f"type=bind,src={tree},dst=/v,idmap={idmap}"
    done = run(host, ["--mount", mount], "true", check=False)
    assert "invalid idmap" in done.stderr


# propagation, in both directions


@pytest.mark.parametrize(
    ("propagation", "inwards", "outwards"),
    [
        ("private", False, False),
        ("rprivate", False, False),
        ("slave", True, False),
        ("rslave", True, False),
        ("shared", True, True),
        ("rshared", True, True),
        ("", False, False),
    ],
)
def test_mounts_travel_as_the_propagation_says(host, tree, propagation, inwards, outwards):
    for name in ("in", "out"):
        (tree / name).mkdir()
    words = f":{propagation}" if propagation else ""
    user = host.docker(
        "run", "-d", "--network=none", "--privileged", "-v", f"{tree}:/v{words}", "busybox",
        "sh", "-c", "mount -t tmpfs tmpfs /v/out; touch /v/out/made; touch /ready; sleep 1000",
    ).stdout.strip()  # fmt: skip
    try:
        host.docker("exec", user, "sh", "-c", "until test -e /ready; do sleep 0.05; done")
        mounts.mount((Mount("tmpfs", "tmpfs"),), tree / "in")
        (tree / "in" / "made").touch()
        seen = host.docker("exec", user, "ls", "/v/in").stdout == "made\n"
        assert (seen, (tree / "out" / "made").exists()) == (inwards, outwards)
    finally:
        host.docker("rm", "-f", user)


# read-only, by writing


@pytest.mark.parametrize(
    ("options", "top", "below"),
    [
        ("", True, True),
        ("readonly", False, False),
        ("readonly,bind-recursive=readonly,bind-propagation=rprivate", False, False),
        ("readonly,bind-recursive=writable", False, True),
        ("readonly,bind-recursive=disabled", False, False),
        ("bind-recursive=disabled", True, True),
    ],
)
def test_what_may_be_written(host, tree, options, top, below):
    mount = f"type=bind,src={tree},dst=/v" + (f",{options}" if options else "")
    command = "for d in /v /v/below; do touch $d/x 2> /dev/null && echo yes || echo no; done"
    done = run(host, ["--mount", mount], command)
    assert [line == "yes" for line in done.stdout.split()] == [top, below]
    # without the mounts below, what was written there is in the directory that they hide
    assert (tree / "below" / "x").exists() == (below and "disabled" not in options)


# links that lead out


@pytest.mark.parametrize("target", ["/etc", "../../../../../../etc", "inside/../../outside"])
def test_a_subpath_does_not_follow_links_out_of_the_volume(host, tree, target):
    host.engine("volume", "create", "linked")
    try:
        run(host, ["-v", "linked:/v"], f"ln -s {target} /v/link; mkdir /v/real; touch /v/real/f")
        place = host.data_root / "volumes" / "local" / "linked" / "_data"
        (place.parent / "outside").mkdir()
        mount = "type=volume,src=linked,dst=/v,volume-subpath="
        assert run(host, ["--mount", mount + "real"], "ls /v").stdout == "f\n"
        done = run(host, ["--mount", mount + "link"], "ls /v", check=False)
        assert "passwd" not in done.stdout
        done = run(host, ["--mount", mount + "../_data"], "ls /v", check=False)
        assert "relative path within the volume" in done.stderr
    finally:
        host.engine("volume", "rm", "-f", "linked")


def test_a_mount_over_a_link_of_the_image_stays_in_the_container(host, tree):
    outside = tree / "outside"
    outside.mkdir()
    (tree / "source").mkdir()
    base = host.docker("create", "--network=none", "busybox", "sh", "-c",
                       f"mkdir -p /real; ln -s {outside} /link").stdout.strip()  # fmt: skip
    host.docker("start", "-a", base)
    host.docker("commit", base, "linked-image")
    host.docker("rm", base)
    # some runtimes make the directory inside the container, others refuse
    host.docker("run", "--rm", "--network=none", "-v", f"{tree}/source:/link/in", "linked-image",
                "touch", "/link/in/x", check=False)  # fmt: skip
    assert list(outside.iterdir()) == []


# the rest of the grammar


def test_images_anonymous_volumes_tmpfs_and_volumes_from(host, tree):
    image = "type=image,src=busybox,dst=/i"
    done = run(host, ["--mount", image], "ls -d /i/bin; touch /i/x; echo $?")
    assert done.stdout == "/i/bin\n1\n"
    done = run(host, ["--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700"],
               "stat -c %a /t; df -k /t | tail -1 | tr -s ' ' | cut -d' ' -f2")  # fmt: skip
    assert done.stdout == "700\n1024\n"
    before = host.engine("volume", "ls", "-q").stdout
    run(host, ["-v", "/anonymous"], "touch /anonymous/x")
    assert host.engine("volume", "ls", "-q").stdout == before
    first = host.docker("create", "--network=none", "-v", "/data", "busybox").stdout.strip()
    run(host, ["--volumes-from", first], "echo x > /data/f")
    done = run(host, ["--volumes-from", f"{first}:ro"], "cat /data/f; touch /data/g; echo $?")
    assert done.stdout == "x\n1\n"
    host.docker("rm", "-v", first)
    assert host.engine("volume", "ls", "-q").stdout == before


def test_a_missing_source_is_made_only_when_asked_for(host, tree):
    mount = f"type=bind,src={tree}/missing,dst=/v"
    assert "does not exist" in run(host, ["--mount", mount], "true", check=False).stderr
    run(host, ["--mount", f"{mount},bind-create-src"], "touch /v/x")
    assert (tree / "missing" / "x").exists()


def test_a_volume_keeps_the_image_out_only_with_nocopy(host):
    run(host, ["--mount", "type=volume,src=filled,dst=/bin"], "true")
    done = run(host, ["-v", "filled:/v"], "ls /v | grep -c . ")
    assert int(done.stdout) > 0
    run(host, ["--mount", "type=volume,src=bare,dst=/etc,volume-nocopy"], "true")
    done = run(host, ["-v", "bare:/v"], "ls /v | grep -vc -e host -e resolv -e mtab", check=False)
    assert done.stdout == "0\n"
    host.engine("volume", "rm", "filled", "bare")
