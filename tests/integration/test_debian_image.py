"""A Debian system made by debootstrap: it runs, and it sees the same world as under dockerd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivetrain.testing.hosts import Host, eventually

#: What a process sees of its confinement, as the pieces that are compared.
PROBES = {
    "capabilities": "grep ^Cap /proc/1/status",
    "seccomp and no_new_privs": "grep -E '^(Seccomp|NoNewPrivs):' /proc/1/status",
    "identity": "id; grep -E '^(Uid|Gid|Groups):' /proc/1/status; umask",
    "namespaces": "for n in ipc mnt net pid user uts cgroup time; do "
    "[ $(readlink /proc/1/ns/$n) = $(cat /host-$n) ] && echo $n host || echo $n own; done",
    "mounts": "awk '{print $2, $3, $4}' /proc/1/mounts",
    "devices": "find /dev -mindepth 1 -not -path '/dev/pts/*' -printf '%p %y %m %U %G %l\\n'|sort",
    "device rules": "cat /sys/fs/cgroup/devices/devices.list",
    "masked": "for f in /proc/acpi /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list "
    "/proc/sched_debug /proc/scsi /sys/firmware; do "
    "[ -e $f ] && echo $f $(find $f -maxdepth 0 -printf '%y') $(ls $f | wc -l) "
    "$(head -c1 $f 2>/dev/null | wc -c); done",
    "read-only": "for f in /proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger /sys; do "
    "[ -e $f ] && { [ -w $f ] && echo $f writable || echo $f read-only; }; done",
    "limits": "cat /proc/1/limits",
    "environment": "tr '\\0' '\\n' < /proc/1/environ | sed 's/^HOSTNAME=.*/HOSTNAME=*/' | sort",
    "oom score": "cat /proc/1/oom_score_adj",
    "sysctls": "cat /proc/sys/net/ipv4/ip_unprivileged_port_start "
    "/proc/sys/net/ipv4/ping_group_range",
}

#: Where we are not as Debian's dockerd 20.10: lines of a probe that only dockerd has, those that
#: only we have (expressions), and why.
REASONS: dict[str, list[tuple[str, str, str]]] = {
    "mounts": [
        (
            r"/ overlay r[ow],relatime,lowerdir=\*,upperdir=\*,workdir=\*",
            r"/ overlay r[ow],relatime,lowerdir=\*,upperdir=\*,workdir=\*,uuid=on,fsync=volatile",
            "nobody misses what a power cut takes of a container with --rm; and the kernel gives a "
            "new overlay a UUID (Documentation/filesystems/overlayfs.rst, uuid=auto), dockerd's "
            "is not new: it was mounted for the files that it puts below /etc",
        ),
        (
            r"",
            r"/proc/interrupts tmpfs rw,nosuid,size=65536k,mode=755",
            "masked since Docker 28: its timing gives away what other containers type",
        ),
    ],
}


@pytest.fixture(scope="session")
def debian_tar() -> Iterator[Path]:
    """The root file system as a tar; made once a session from the mirror that apt uses."""
    given = os.environ.get("DRIVETRAIN_DEBIAN_TAR")
    if given:
        yield Path(given)
        return
    sources = [*Path("/etc/apt/sources.list.d").glob("*.sources"), Path("/etc/apt/sources.list")]
    text = "\n".join(path.read_text() for path in sources if path.exists())
    mirror = re.search(r"https?://\S+/debian/?(?=\s|$)", text)
    suite = re.search(r"VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text())
    assert mirror and suite, "apt of this machine knows no mirror of Debian"
    # In memory: dpkg syncs every file.
    with tempfile.TemporaryDirectory(prefix="dt-debian-", dir="/dev/shm") as folder:
        root, archive = Path(folder, "root"), Path(folder, "debian.tar")
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", suite[1], root, mirror[0]],
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert made.returncode == 0, made.stdout[-2000:]
        shutil.rmtree(root / "var/cache/apt/archives")
        subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
        shutil.rmtree(root)
        yield archive


@pytest.fixture(scope="module")
def engine_host(debian_tar: Path) -> Iterator[Host]:
    with Host() as host:
        host.start()
        with debian_tar.open("rb") as archive:
            subprocess.run(
                [*host.engine_command, "import", "-c", 'CMD ["bash"]', "-", "debian"],
                stdin=archive,
                check=True,
                capture_output=True,
                timeout=200,
            )
        yield host


@pytest.fixture(scope="module")
def dockerd(debian_tar: Path) -> Iterator[list[str]]:
    """Docker's client for a dockerd of the test's own that has the same image."""
    # A unix socket's path has to be short.
    root = Path(f"/tmp/dt-oracle-{os.getpid()}")
    root.mkdir()
    client = ["docker", "-H", f"unix://{root}/s"]
    command = [
        "dockerd", "--data-root", root / "data", "--exec-root", root / "exec", "--pidfile",
        root / "pid", "-H", f"unix://{root}/s", "--bridge", "none", "--iptables=false",
        "--ip6tables=false",
    ]  # fmt: skip
    with (root / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        eventually(
            lambda: subprocess.run([*client, "version"], capture_output=True).returncode == 0,
            "dockerd answers",
        )
        with debian_tar.open("rb") as archive:
            subprocess.run(
                [*client, "import", "-c", 'CMD ["bash"]', "-", "debian"],
                stdin=archive,
                check=True,
                capture_output=True,
            )
        yield client
    finally:
        daemon.terminate()
        daemon.wait(60)
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if line.split()[4].startswith(f"{root}/"):
                subprocess.run(["umount", "-l", line.split()[4]], check=False)
        shutil.rmtree(root, ignore_errors=True)


def test_apt_id_and_status_of_a_debian_container(host: Host) -> None:
    script = "apt-get --version && id && cat /proc/1/status"
    shown = host.engine("run", "debian", "sh", "-c", script).stdout
    assert re.match(r"apt 2\.\d", shown)
    assert "uid=0(root) gid=0(root) groups=0(root)" in shown
    assert re.search(r"^CapEff:\t00000000a80425fb$", shown, re.MULTILINE)
    assert re.search(r"^Seccomp:\t2$", shown, re.MULTILINE)
    assert re.search(r"^NSpid:\t1$", shown, re.MULTILINE)


def test_packages_can_be_handled_and_the_layer_keeps_them(host: Host) -> None:
    script = "dpkg --verify && useradd -m joe && id joe"
    host.engine("run", "--name", "box", "debian", "bash", "-ec", script)
    host.engine("commit", "box", "joes")
    shown = host.engine("run", "-u", "joe", "-w", "/home/joe", "joes", "bash", "-c", "id; pwd")
    assert shown.stdout.startswith("uid=1000(joe) gid=1000(joe)")
    assert shown.stdout.endswith("/home/joe\n")
    host.clear()
    host.engine("rmi", "joes")


def look(run: list[str]) -> dict[str, list[str]]:
    """Run all probes in one container and return their lines."""
    script = "".join(f"echo '== {name}'; {{ {probe}; }} 2>&1\n" for name, probe in PROBES.items())
    mounts: list[str] = []
    with tempfile.TemporaryDirectory(prefix="dt-ns-") as folder:
        for name in ("ipc", "mnt", "net", "pid", "user", "uts", "cgroup", "time"):
            path = Path(folder, name)
            path.write_text(os.readlink(f"/proc/self/ns/{name}") + "\n")
            mounts += ["-v", f"{path}:/host-{name}:ro"]
        done = subprocess.run(
            [*run, *mounts, "debian", "bash", "-c", script],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("== "):
            found[line[3:]] = []
        elif "/host-" not in line:
            found[list(found)[-1]].append(_settled(line))
    return found


def _settled(line: str) -> str:
    """Leave out what differs from container to container."""
    line = re.sub(r"(lowerdir|upperdir|workdir)=[^,\s]*", r"\1=*", line)
    return re.sub(r"/(docker|engine)/[0-9a-f]{64}", "/*", line)


# --privileged is not among them: dockerd cannot start such a container where the machine itself
# lacks a capability (here CAP_SYS_RESOURCE); ours gives it those that there are.
@pytest.mark.parametrize(
    "flags",
    [(), ("--read-only", "-u", "1000:1000", "--cap-add", "NET_ADMIN", "--ulimit", "nofile=99:999")],
    ids=["plain", "with flags"],
)
def test_a_container_sees_what_it_sees_under_dockerd(
    host: Host, dockerd: list[str], flags: tuple[str, ...]
) -> None:
    common = ["run", "--rm", "--network", "none", *flags]
    theirs = look([*dockerd, *common])
    # dockerd's runtime, since each has its own way to mask a path; crun's is our default.
    ours = look([*host.engine_command, *common, "--runtime", "runc"])
    assert set(ours) == set(theirs) == set(PROBES)
    unexplained = []
    for name in PROBES:
        reasons = REASONS.get(name, [])
        for line in _without(theirs[name], ours[name]):
            if not any(re.fullmatch(docker, line) for docker, _, _ in reasons if docker):
                unexplained.append(f"{name}: only dockerd has: {line}")
        for line in _without(ours[name], theirs[name]):
            if not any(re.fullmatch(mine, line) for _, mine, _ in reasons):
                unexplained.append(f"{name}: only the engine has: {line}")
    assert not unexplained, "\n".join(unexplained)


def _without(lines: list[str], others: list[str]) -> list[str]:
    rest = list(others)
    left = []
    for line in lines:
        if line in rest:
            rest.remove(line)
        else:
            left.append(line)
    return left
