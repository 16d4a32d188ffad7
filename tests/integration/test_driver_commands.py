"""``engine driver`` with and without a daemon, and which storage driver a data root gets."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivetrain.errors import Internal, NotSupported
from drivetrain.registry import Registry
from drivetrain.testing.distributions import Distributions, distributions
from drivetrain.testing.hosts import Host
from drivetrain_engine.layers.selection import choose_default
from drivetrain_engine.state import State

#: A storage driver whose probe fails while its distribution's folder has a file of that name.
PICKY = """
    from pathlib import Path

    from drivetrain import hookimpl
    from drivetrain.errors import NotSupported, Unavailable
    from drivetrain.storage import Mount

    HERE = Path(__file__).parent

    class Picky:
        @hookimpl
        def storage_probe(self, root):
            if (HERE / "unsupported").exists():
                raise NotSupported("mkfs.picky is missing: apt-get install picky-progs")
            if (HERE / "unavailable").exists():
                raise Unavailable("the pool is offline: start it")
            return True

        @hookimpl
        def storage_open(self, root, options):
            self.root = root
            return True

        @hookimpl
        def layer_create(self, key, parents, options):
            return True

        @hookimpl
        def layer_mounts(self, key, parents, read_only):
            return (Mount("bind", str(self.root / key), ("rw",)),)

        @hookimpl
        def layer_commit(self, key):
            return True

        @hookimpl
        def layer_remove(self, key):
            return True
"""


@pytest.fixture
def picky(tmp_path: Path) -> Iterator[Distributions]:
    with distributions(tmp_path / "site") as made:
        made.install(
            "acme-storage-picky",
            version="0.7",
            drivers={"storage/picky": "acme_picky:Picky"},
            modules={"acme_picky": PICKY},
        )
        yield made


def engine(
    host: Host, *arguments: str, check: bool = True, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run our command line with one more folder on ``sys.path``."""
    environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    done = subprocess.run(
        [*host.engine_command, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )
    assert not check or done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done


# without a daemon


def test_ls_without_a_daemon_shows_what_pip_installed(
    fresh_host: Host, picky: Distributions
) -> None:
    listed = engine(fresh_host, "driver", "ls", "--family", "storage", path=picky.folder).stdout
    lines = {line.split()[1]: line for line in listed.splitlines()}
    assert {"overlay2", "vfs", "picky"} <= set(lines)
    assert "acme-storage-picky 0.7" in lines["picky"]
    assert "json-file" not in lines
    shown = engine(fresh_host, "driver", "ls", "--format", "json", path=picky.folder).stdout
    rows = [json.loads(line) for line in shown.splitlines()]
    assert {row["Family"] for row in rows} >= {"storage", "network", "log", "volume"}
    assert next(row for row in rows if row["Name"] == "picky")["State"] == "ok"
    assert not fresh_host.socket.exists(), "no daemon was started for it"


def test_ls_names_what_is_blocked_and_what_is_broken(
    fresh_host: Host, picky: Distributions, monkeypatch: pytest.MonkeyPatch
) -> None:
    picky.install(
        "acme-log-odd",
        drivers={"log/odd": "acme_odd:Odd"},
        modules={"acme_odd": "import no_such_module"},
    )
    monkeypatch.setenv("DRIVETRAIN_BLOCK", "storage/picky")
    listed = engine(fresh_host, "driver", "ls", path=picky.folder).stdout
    lines = {line.split()[1]: line for line in listed.splitlines()}
    assert "blocked" in lines["picky"]
    assert "by DRIVETRAIN_BLOCK" in lines["picky"]
    assert "broken" in lines["odd"]
    assert "No module named 'no_such_module'" in lines["odd"]
    assert "acme-log-odd 1.0" in lines["odd"]


def test_inspect_shows_options_with_types_and_defaults(fresh_host: Host) -> None:
    shown = engine(fresh_host, "driver", "inspect", "log", "json-file").stdout
    assert "log/json-file" in shown
    assert "drivetrain-log-json-file 0.1.0" in shown
    assert "  max-file integer" in shown
    asked = engine(fresh_host, "driver", "inspect", "-f", "json", "log", "json-file").stdout
    found = json.loads(asked)
    found = found[0] if isinstance(found, list) else found
    options = {option["name"]: option for option in found["options"]}
    assert (options["max-size"]["type"], options["compress"]["default"]) == ("size", False)
    unknown = engine(fresh_host, "driver", "inspect", "log", "nowhere", check=False)
    assert unknown.returncode == 1
    assert "No such log driver: nowhere (installed: " in unknown.stderr


def test_probe_runs_for_real_and_says_what_is_missing(
    fresh_host: Host, picky: Distributions
) -> None:
    def probe(*arguments: str) -> subprocess.CompletedProcess[str]:
        return engine(fresh_host, "driver", "probe", *arguments, check=False, path=picky.folder)

    assert probe("storage", "picky").stdout == "storage/picky: ok\n"
    (picky.folder / "unsupported").touch()
    missing = probe("storage", "picky")
    assert missing.returncode == 1
    assert missing.stdout == (
        "storage/picky: not supported: mkfs.picky is missing: apt-get install picky-progs\n"
    )
    everything = probe("storage")
    assert "storage/vfs: ok\n" in everything.stdout
    assert everything.returncode == 1
    assert probe("storage", "nowhere").returncode == 1


def test_use_keeps_what_else_is_in_daemon_json(fresh_host: Host) -> None:
    fresh_host.config_file.write_text(
        '{"labels": ["ü=1"], "log-opts": {"max-size": "1m"}, "mtu": 1400}'
    )
    fresh_host.config_file.chmod(0o640)
    said = engine(fresh_host, "driver", "use", "storage", "vfs").stdout
    assert "storage-driver is now vfs" in said
    said = engine(fresh_host, "driver", "use", "log", "local-or-not", check=False)
    assert said.returncode == 1
    assert "No such log driver: local-or-not" in said.stderr
    engine(fresh_host, "driver", "use", "log", "none")
    written = json.loads(fresh_host.config_file.read_text())
    assert written == {
        "labels": ["ü=1"],
        "log-opts": {"max-size": "1m"},
        "mtu": 1400,
        "storage-driver": "vfs",
        "log-driver": "none",
    }
    assert fresh_host.config_file.stat().st_mode & 0o777 == 0o640
    again = engine(fresh_host, "driver", "use", "storage", "vfs").stdout
    assert "names vfs already" in again
    assert "it was vfs" in engine(fresh_host, "driver", "use", "storage", "overlay2").stdout
    per_object = engine(fresh_host, "driver", "use", "network", "bridge", check=False)
    assert "is chosen for each network" in per_object.stderr
    left = [path.name for path in fresh_host.root.iterdir() if ".new" in path.name]
    assert left == []


# with a daemon


def test_the_same_commands_ask_a_daemon_that_runs(fresh_host: Host, picky: Distributions) -> None:
    host = fresh_host
    engine(host, "driver", "use", "storage", "vfs")
    host.start(environment={"PYTHONPATH": str(picky.folder)})
    host.load_busybox()
    host.engine("create", "--name", "one", "--log-driver", "none", "busybox")
    listed = engine(host, "driver", "ls", "--family", "storage").stdout
    lines = {line.split()[1]: line.split() for line in listed.splitlines()}
    assert "picky" in lines, "the daemon knows it, this command does not"
    assert lines["vfs"][2:5] == ["*", "ok", "1"]
    assert lines["overlay2"][2:4] == ["ok", "0"]
    shown = engine(host, "driver", "inspect", "storage", "vfs").stdout
    assert "In use by:    1\n" in shown
    (picky.folder / "unsupported").touch()
    missing = engine(host, "driver", "probe", "storage", "picky", check=False)
    assert "not supported: mkfs.picky is missing" in missing.stdout
    assert engine(host, "driver", "probe", "network", "bridge").stdout == "network/bridge: ok\n"
    said = engine(host, "driver", "use", "storage", "overlay2").stdout
    assert "takes it up at its next start" in said
    host.stop()
    host.start(environment={"PYTHONPATH": str(picky.folder)})
    info = json.loads(host.docker("info", "--format", "{{json .}}").stdout)
    assert info["Driver"] == "overlay2"
    driver = host.docker("inspect", "-f", "{{.GraphDriver.Name}}", "one").stdout
    assert driver == "vfs\n", "a container keeps its driver"


# which one a data root gets


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def test_with_no_driver_named_the_first_supported_of_the_list_is_taken(
    picky: Distributions, root: Path
) -> None:
    (picky.folder / "unsupported").touch()
    state = State(None)
    assert choose_default(root, Registry(), state, None, ["picky", "vfs"]) == "vfs"
    (picky.folder / "unsupported").unlink()
    again = choose_default(root, Registry(), state, None, ["picky", "vfs"])
    assert again == "vfs", "state on disk decides before the list"
    assert choose_default(root, Registry(), State(None), None, ["picky", "vfs"]) == "picky"


def test_only_not_supported_is_passed_over(picky: Distributions, root: Path) -> None:
    (picky.folder / "unavailable").touch()
    with pytest.raises(Exception, match="the pool is offline: start it"):
        choose_default(root, Registry(), State(None), None, ["picky", "vfs"])


def test_a_driver_that_worked_before_and_fails_now_stops_with_its_reason(
    picky: Distributions, root: Path
) -> None:
    state = State(None)
    assert choose_default(root, Registry(), state, "picky", ["vfs"]) == "picky"
    (picky.folder / "unsupported").touch()
    with pytest.raises(NotSupported) as caught:
        choose_default(root, Registry(), state, None, ["vfs"])
    assert "storage driver picky cannot be used: mkfs.picky is missing" in str(caught.value)
    assert "was made with it" in str(caught.value)
    assert choose_default(root, Registry(), state, "vfs", ["picky"]) == "vfs", "a named one wins"


def test_a_driver_that_was_uninstalled_stops_too(root: Path, tmp_path: Path) -> None:
    state = State(None)
    with distributions(tmp_path / "site") as made:
        made.install(
            "acme", drivers={"storage/picky": "acme_picky:Picky"}, modules={"acme_picky": PICKY}
        )
        assert choose_default(root, Registry(), state, "picky") == "picky"
    with pytest.raises(NotSupported, match="pip install drivetrain-storage-picky"):
        choose_default(root, Registry(), state, None, ["vfs"])


def test_no_driver_at_all_and_no_supported_one_are_told_apart(
    picky: Distributions, root: Path
) -> None:
    installed = Registry().names("storage")
    with pytest.raises(Internal, match="no storage driver is installed: pip install"):
        choose_default(root, Registry(block=installed), State(None))
    (picky.folder / "unsupported").touch()
    others = [name for name in installed if name != "picky"]
    with pytest.raises(
        NotSupported, match=r"no storage driver can be used here: picky: mkfs.picky"
    ):
        choose_default(root, Registry(block=others), State(None))


def test_a_daemon_whose_driver_fails_now_does_not_start(
    fresh_host: Host, picky: Distributions
) -> None:
    host, environment = fresh_host, {"PYTHONPATH": str(picky.folder)}
    host.start("--storage-driver", "picky", environment=environment)
    host.stop()
    (picky.folder / "unsupported").touch()
    with pytest.raises(AssertionError, match=r"picky cannot be used: mkfs.picky is missing"):
        host.start(environment=environment)
    assert "Traceback" not in host.log_tail()
    host.start("--storage-driver", "vfs", environment=environment)
    assert "vfs" in host.docker("info", "--format", "{{.Driver}}").stdout
