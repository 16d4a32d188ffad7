"""Docker's own volume plugins: a program in another language, behind a socket or a file."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from tests.certificates import make_certificates
from tests.dockerd import Dockerd

from drivetrain.testing.hosts import Host, eventually
from drivetrain.testing.rootfs import busybox_tar

PROGRAM = Path(__file__).parents[1] / "receivers" / "volumes.js"
SOCKETS = Path("/run/docker/plugins")
FILES = Path("/etc/docker/plugins")
TOKEN = f"t{os.getpid()}"


@pytest.fixture(scope="module")
def host():
    with Host() as host:
        host.start("--storage-driver", "vfs")
        host.load_busybox()
        yield host


class Plugin:
    """The plugin as a process that can be killed and started."""

    def __init__(self, name, address, place, implements="VolumeDriver", inside=()):
        self.name, self.address, self.place = name, address, place
        self.implements, self.inside = implements, inside
        self.root = Path(tempfile.mkdtemp(prefix="dt-plugin-"))
        self.process = None
        if address.startswith("tls:"):
            make_certificates(self.root)
        self.start()

    def start(self):
        environment = {**os.environ, "IMPLEMENTS": self.implements}
        self.process = subprocess.Popen(
            [*self.inside, "node", PROGRAM, self.address, self.root], env=environment
        )
        eventually(self.answers, "the plugin listens")

    def answers(self):
        if not self.address.startswith("unix:"):
            listening = subprocess.run(
                [*self.inside, "ss", "-Hltn"], check=True, capture_output=True, text=True
            ).stdout
            return f":{self.place} " in listening
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(self.place)
            except OSError:
                return False
        return True

    def kill(self):
        self.process.kill()
        self.process.wait()
        # as a killed program leaves it, its socket stays and takes no connections

    def revive(self):
        if self.address.startswith("unix:"):
            Path(self.place).unlink(missing_ok=True)
        self.start()

    def calls(self):
        lines = (self.root / "calls").read_text().splitlines()
        return [line.split(" ", 2)[1].rpartition(".")[2] for line in lines]

    def silence(self, on=True):
        if on:
            (self.root / "silent").touch()
        else:
            (self.root / "silent").unlink(missing_ok=True)

    def remove(self):
        self.kill()
        if self.address.startswith("unix:"):
            Path(self.place).unlink(missing_ok=True)
        shutil.rmtree(self.root)


@contextlib.contextmanager
def directories(*paths):
    """Directories of the host that may not be there yet; those made are removed again."""
    made = []
    for path in paths:
        for folder in [*reversed(path.parents), path]:
            if not folder.exists():
                folder.mkdir()
                made.append(folder)
    try:
        yield
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


@pytest.fixture
def plugin():
    name = f"node-{TOKEN}"
    with directories(SOCKETS):
        place = str(SOCKETS / f"{name}.sock")
        plugin = Plugin(name, f"unix:{place}", place)
        yield plugin
        plugin.remove()


@pytest.fixture
def volume(host, plugin):
    yield "data"
    plugin.silence(False)
    if plugin.process.poll() is not None:
        plugin.revive()
    host.engine("volume", "rm", "-f", "data", "copy")


def run(host, volume, command, check=True):
    return host.docker("run", "--rm", "--network=none", "-v", f"{volume}:/v", "busybox",
                       "sh", "-c", command, check=check)  # fmt: skip


def test_a_plugin_is_a_driver(host, plugin, volume):
    host.engine("volume", "create", "-d", plugin.name, "-o", "size=1", "-o", "password=x", "data")
    run(host, "data", "echo one > /v/file")
    assert run(host, "data", "cat /v/file").stdout == "one\n"
    assert (plugin.root / "volumes" / "data" / "file").read_text() == "one\n"
    shown = json.loads(host.engine("volume", "inspect", "data").stdout)[0]
    assert (shown["Driver"], shown["Scope"]) == (plugin.name, "global")
    assert shown["Options"] == {"size": "1", "password": "***"}
    state = json.loads((plugin.root / "state.json").read_text())
    assert state["data"] == {"options": {"size": "1", "password": "x"}, "mounted": []}
    assert plugin.calls()[0] == "Activate"
    assert plugin.name in host.engine("driver", "ls").stdout
    host.engine("volume", "clone", "data", "copy")
    assert run(host, "copy", "cat /v/file").stdout == "one\n"
    host.engine("volume", "rm", "data", "copy")
    assert json.loads((plugin.root / "state.json").read_text()) == {}


def test_what_a_plugin_refuses_is_told_in_its_words(host, plugin, volume):
    failed = host.engine(
        "volume", "create", "-d", plugin.name, "-o", "fail=for fun", "data", check=False
    )
    assert "will not: for fun" in failed.stderr
    assert "data" not in host.engine("volume", "ls", "-q").stdout
    failed = host.engine("volume", "create", "-d", f"no-{plugin.name}", "data", check=False)
    assert f"No such volume driver: no-{plugin.name}" in failed.stderr


def test_a_plugin_gives_docker_and_this_engine_the_same(host, plugin, volume):
    root = Path(f"/tmp/dt-dockerd-{TOKEN}")
    root.mkdir()
    dockerd = Dockerd(root)
    try:
        dockerd.wait()
        dockerd("import", "-", "busybox:latest", stdin=busybox_tar())
        asked, results = [], []
        for client in (lambda *words: host.docker(*words).stdout, lambda *words: dockerd(*words)):
            (plugin.root / "calls").write_text("")
            client("volume", "create", "-d", plugin.name, "-o", "a=b", "data")
            ran = ["run", "--rm", "--network=none", "-v", "data:/v", "busybox", "sh", "-c"]
            client(*ran, "echo x >> /v/file; cat /v/file")
            shown = json.loads(client("volume", "inspect", "data"))[0]
            results.append({key: shown[key] for key in ("Name", "Driver", "Scope", "Options")})
            state = json.loads((plugin.root / "state.json").read_text())
            assert state["data"] == {"options": {"a": "b"}, "mounted": []}
            client("volume", "rm", "data")
            calls = plugin.calls()
            asked.append([call for call in calls if call in ("Create", "Mount", "Remove")])
        assert results[0] == results[1]
        assert asked[0] == asked[1] == ["Create", "Mount", "Remove"]
    finally:
        dockerd.stop()
        shutil.rmtree(root)


PORT = 7777


@contextlib.contextmanager
def plugin_file(name, content):
    """A file in /etc/docker/plugins that names a plugin."""
    with directories(FILES):
        path = FILES / name
        path.write_text(content)
        try:
            yield
        finally:
            path.unlink()


def use(host, name):
    """Use a volume of a plugin, from its creation to its removal."""
    host.engine("volume", "create", "-d", name, "data-file")
    try:
        assert run(host, "data-file", "echo x > /v/f; cat /v/f").stdout == "x\n"
    finally:
        host.engine("volume", "rm", "data-file")


def test_a_plugin_may_be_named_by_a_file(host):
    place = f"{Path(tempfile.mkdtemp(prefix='dt-plugin-'))}/socket"
    plugin = Plugin("file", f"unix:{place}", place)
    name = f"file-{TOKEN}"
    try:
        with plugin_file(f"{name}.spec", f"unix://{place}\n"):
            use(host, name)
        with plugin_file(f"{name}.json", json.dumps({"Name": name, "Addr": f"unix://{place}"})):
            use(host, name)
        with plugin_file(f"{name}.spec", f"tcp://127.0.0.1:{PORT}\n"):
            failed = host.engine("volume", "create", "-d", name, "x1", check=False)
            assert f"plugin {name} does not answer" in failed.stderr
    finally:
        plugin.remove()
        shutil.rmtree(Path(place).parent)


def test_a_plugin_may_be_reached_by_tcp(host):
    plugin = Plugin("tcp", f"tcp:{PORT}", PORT, inside=host.inside)
    name = f"tcp-{TOKEN}"
    try:
        with plugin_file(f"{name}.spec", f"tcp://127.0.0.1:{PORT}\n"):
            use(host, name)
        assert plugin.calls()[:2] == ["Activate", "Capabilities"]
    finally:
        plugin.remove()


def test_a_plugin_behind_tls_takes_only_who_is_known_and_is_known_itself(host):
    plugin = Plugin("tls", f"tls:{PORT}", PORT, inside=host.inside)
    name = f"tls-{TOKEN}"

    def named(address=f"tcp://127.0.0.1:{PORT}", ca="ca", client="client", skip=False):
        tls = {
            "CAFile": str(plugin.root / f"{ca}.pem"),
            "CertFile": str(plugin.root / f"{client}.pem"),
            "KeyFile": str(plugin.root / f"{client}.key"),
            "InsecureSkipVerify": skip,
        }
        return plugin_file(
            f"{name}.json", json.dumps({"Name": name, "Addr": address, "TLSConfig": tls})
        )

    try:
        for known in (
            {},
            {"address": f"https://127.0.0.1:{PORT}"},
            {"ca": "stranger", "skip": True},
        ):
            with named(**known):
                use(host, name)
        for unknown in ({"ca": "stranger"}, {"client": "intruder"}):
            with named(**unknown):
                failed = host.engine("volume", "create", "-d", name, "x1", check=False)
                assert f"plugin {name} does not answer" in failed.stderr, unknown
    finally:
        plugin.remove()


def test_volumes_of_a_plugin_that_nothing_has_used_yet_are_listed(host, plugin):
    state = {"old": {"options": {}, "mounted": []}}
    plugin.kill()
    (plugin.root / "state.json").write_text(json.dumps(state))
    (plugin.root / "volumes" / "old").mkdir()
    (plugin.root / "volumes" / "old" / "file").write_text("kept\n")
    plugin.revive()
    try:
        listed = host.docker("volume", "ls", "--format", "{{.Driver}} {{.Name}}").stdout
        assert f"{plugin.name} old" in listed.splitlines()
        assert run(host, "old", "cat /v/file").stdout == "kept\n"
    finally:
        host.engine("volume", "rm", "old")


def test_a_plugin_of_another_kind_is_no_fault_of_a_list_of_volumes(host):
    name = f"net-{TOKEN}"
    with directories(SOCKETS):
        place = str(SOCKETS / f"{name}.sock")
        plugin = Plugin(name, f"unix:{place}", place, implements="NetworkDriver")
        try:
            assert host.engine("volume", "ls").stderr == ""
            assert plugin.calls() == ["Activate"]
        finally:
            plugin.remove()


@pytest.mark.parametrize("fault", ["killed", "silent"])
def test_a_plugin_that_is_gone_keeps_nobody_else_waiting(host, plugin, volume, fault):
    host.engine("volume", "create", "-d", plugin.name, "data")
    user = host.docker("run", "-d", "--network=none", "-v", "data:/v", "busybox", "sleep", "1000")
    user = user.stdout.strip()
    if fault == "killed":
        plugin.kill()
    else:
        plugin.silence()
    try:
        # a command that waits for the plugin …
        waiting = subprocess.Popen(
            [*host.docker_command, "run", "--rm", "--network=none", "-v", "new-one:/v",
             "--volume-driver", plugin.name, "busybox", "true"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        # … while others do not
        before = time.monotonic()
        assert host.docker("run", "--rm", "--network=none", "-v", "other:/v", "busybox",
                           "echo", "fine").stdout == "fine\n"  # fmt: skip
        assert user[:12] in host.docker("ps").stdout
        assert host.docker("exec", user, "echo", "on").stdout == "on\n"
        host.docker("inspect", user)
        assert plugin.name in host.docker("volume", "inspect", "data").stdout
        listed = host.engine("volume", "ls")
        assert "data" in listed.stdout and "other" in listed.stdout
        assert f"volume driver {plugin.name}" in listed.stderr
        assert time.monotonic() - before < 50, "a question waited for more than it may"
        message = waiting.communicate(timeout=70)[1].decode()
        assert waiting.returncode != 0 and f"plugin {plugin.name} does not answer" in message
        # and it recovers by itself
        if fault == "killed":
            plugin.revive()
        else:
            plugin.silence(False)
        assert run(host, "data", "echo back").stdout == "back\n"
        assert host.engine("volume", "ls").stderr == ""
    finally:
        host.docker("rm", "-f", user)
        host.engine("volume", "rm", "-f", "other")


def test_the_engine_starts_while_a_plugin_is_away_and_unmounts_later(host, plugin, volume):
    host.engine("volume", "create", "-d", plugin.name, "data")
    user = host.docker("run", "-d", "--network=none", "-v", "data:/v", "busybox", "sleep", "1000")
    user = user.stdout.strip()
    plugin.kill()
    host.kill()
    host.start("--storage-driver", "vfs")
    assert "data" in host.engine("volume", "ls", "-q").stdout
    plugin.revive()
    host.docker("rm", "-f", user)
    assert json.loads((plugin.root / "state.json").read_text())["data"]["mounted"] == []
