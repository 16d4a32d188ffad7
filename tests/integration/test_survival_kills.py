"""SIGKILL at random points of create, start, stop and rm, of the daemon and of shims.

After each kill of the daemon a new one is started, and an audit compares its records with the
kernel and the disk. ``DRIVETRAIN_KILL_SEED`` repeats a run's choices (its timing is the machine's),
``DRIVETRAIN_KILLS`` changes how many there are.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.audit import Audit
from tests.unixapi import GONE, Api

from drivetrain.testing.hosts import Host

KILLS = int(os.environ.get("DRIVETRAIN_KILLS", "200"))
#: Kills of a round: some shims, then the daemon.
SHIMS_PER_ROUND = 7
WORKERS = 4
#: Containers above this number are only removed.
CROWD = 10

Json = dict[str, Any]


class Crowd:
    """Clients that create, start, stop and remove containers until the daemon is gone.

    Attributes:
        made: ids that a client was told, and that nobody asked to remove.
        removed: ids whose removal a client was told.
    """

    def __init__(self, host: Host, marker: str, group: str) -> None:
        self._api = Api(host.socket)
        self._marker = marker
        self._group = group
        self._lock = threading.Lock()
        self.made: set[str] = set()
        self.removed: set[str] = set()
        self.unexpected: list[str] = []

    def work(self, chance: random.Random, ended: threading.Event) -> None:
        """One client: random operations until the daemon is gone or ``ended`` is set."""
        operations: list[Callable[[random.Random], None]]
        while not ended.is_set():
            operations = [self._create, self._create, self._start, self._stop, self._remove]
            if len(self.made) > CROWD:
                operations = [self._remove, self._stop]
            try:
                chance.choice(operations)(chance)
            except GONE:
                return

    def _some(self, chance: random.Random) -> str | None:
        with self._lock:
            return chance.choice(sorted(self.made)) if self.made else None

    def _expect(self, what: str, answer: tuple[int, Any], *statuses: int) -> None:
        # 500: a shim was killed under the operation, and the daemon says so.
        if answer[0] not in (*statuses, 500):
            self.unexpected.append(f"{what}: {answer}")

    def _create(self, chance: random.Random) -> None:
        answer = self._api.ask("POST", "/containers/create", self._body(chance))
        self._expect("create", answer, 201)
        if answer[0] != 201:
            return
        name = answer[1]["Id"]
        with self._lock:
            self.made.add(name)
        if chance.random() < 0.8:
            started = self._api.ask("POST", f"/containers/{name}/start")
            self._expect("start", started, 204, 304, 404, 409)

    def _body(self, chance: random.Random) -> Json:
        script = "trap 'exit 7' TERM; while :; do echo line; sleep 0.02; done"
        host: Json = {"NetworkMode": chance.choice(["bridge", "bridge", "mine", "host", "none"])}
        host["Runtime"] = chance.choice(["crun", "runc"])
        host["CgroupParent"] = f"/{self._group}"
        body: Json = {
            "Image": "busybox",
            "Cmd": ["sh", "-c", script, self._marker],
            "Tty": chance.random() < 0.2,
            "HostConfig": host,
        }
        if host["NetworkMode"] in ("bridge", "mine") and chance.random() < 0.7:
            where = chance.choice(["", "127.0.0.1"])
            host["PortBindings"] = {"80/tcp": [{"HostPort": "", "HostIp": where}]}
            body["ExposedPorts"] = {"80/tcp": {}}
        if chance.random() < 0.3:
            body["Volumes"] = {"/data": {}}
        if chance.random() < 0.2:
            host["IpcMode"] = "shareable"
        if chance.random() < 0.2:
            host["RestartPolicy"] = {"Name": "always"}
        return body

    def _start(self, chance: random.Random) -> None:
        if name := self._some(chance):
            answer = self._api.ask("POST", f"/containers/{name}/start")
            self._expect("start", answer, 204, 304, 404, 409)

    def _stop(self, chance: random.Random) -> None:
        if name := self._some(chance):
            answer = self._api.ask("POST", f"/containers/{name}/stop?t={chance.choice([0, 5])}")
            self._expect("stop", answer, 204, 304, 404, 409)

    def _remove(self, chance: random.Random) -> None:
        name = self._some(chance)
        if name is None:
            return
        with self._lock:
            self.made.discard(name)
        answer = self._api.ask("DELETE", f"/containers/{name}?force=1&v=1")
        self._expect("remove", answer, 204, 404, 409)
        if answer[0] == 204:
            self.removed.add(name)


def shims(host: Host) -> list[int]:
    """The processes of a host's shims."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if not (entry / "comm").read_text().startswith("shim:"):
                continue
            if str(host.exec_root).encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return sorted(found)


def kill_a_shim(host: Host, chance: random.Random, patience: float = 2.0) -> int:
    """Kill one at random, as soon as there is one; returns how many were killed."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if found := shims(host):
            try:
                # Half of the time the youngest: it may be making its container.
                os.kill(chance.choice([chance.choice(found), found[-1]]), signal.SIGKILL)
            except ProcessLookupError:
                continue
            return 1
        time.sleep(0.01)
    return 0


def one_round(host: Host, crowd: Crowd, chance: random.Random) -> int:
    """Let clients work, kill shims and then the daemon; returns the number of kills."""
    ended = threading.Event()
    clients = [
        threading.Thread(target=crowd.work, args=(random.Random(chance.random()), ended))
        for _ in range(WORKERS)
    ]
    for client in clients:
        client.start()
    kills = 0
    for _ in range(SHIMS_PER_ROUND):
        time.sleep(chance.uniform(0.0, 0.15))
        kills += kill_a_shim(host, chance)
    time.sleep(chance.uniform(0.0, 0.15))
    host.kill()
    ended.set()
    for client in clients:
        client.join(120)
    return kills + 1


def kill_a_beginning(host: Host, chance: random.Random) -> int:
    """Start a daemon and kill it before it serves, or soon after; returns the number of kills."""
    with host.log.open("ab") as log:
        daemon = subprocess.Popen(host.engine_command, stdout=log, stderr=log)
    time.sleep(chance.uniform(0.2, 0.9))
    daemon.kill()
    daemon.wait()
    return 1


def settled(host: Host, crowd: Crowd, group: str, marker: str, seconds: float = 15.0) -> list[str]:
    """The faults that an audit finds and that do not go away: restarts and links take a moment."""
    deadline = time.monotonic() + seconds
    while True:
        audit = Audit(host, group, marker)
        faults = audit.faults()
        known = set(audit.containers)
        faults += [f"a container got lost: {one}" for one in sorted(crowd.made - known)]
        faults += [f"a removed container is back: {one}" for one in sorted(crowd.removed & known)]
        if not faults or time.monotonic() > deadline:
            return faults
        time.sleep(0.1)


def test_kills_of_daemon_and_shims_leave_nothing_that_no_record_owns() -> None:
    seed = os.environ.get("DRIVETRAIN_KILL_SEED") or str(random.randrange(10**6))
    print(f"DRIVETRAIN_KILL_SEED={seed}")
    chance = random.Random(seed)
    with Host() as host:
        marker = f"marker-{host.netns}"
        group = f"{host.netns}-kills"
        host.start()
        host.load_busybox()
        host.docker("network", "create", "mine")
        crowd = Crowd(host, marker, group)
        kills = rounds = 0
        while kills < KILLS:
            kills += one_round(host, crowd, chance)
            rounds += 1
            if chance.random() < 0.3:
                kills += kill_a_beginning(host, chance)
            host.start()
            faults = settled(host, crowd, group, marker)
            said = f"seed {seed}, round {rounds}, after {kills} kills"
            assert not faults, f"{said}: {faults}\n{host.log_tail(60)}"
            assert not crowd.unexpected, f"{said}: {crowd.unexpected}"
            crowd.made = set(Audit(host, group, marker).containers)
        host.clear()
        crowd.made.clear()
        assert settled(host, crowd, group, marker) == []
        assert not re.findall(r"Traceback.*", host.log.read_text())
        for parent in (*Path("/sys/fs/cgroup").glob(f"*/{group}"), Path("/sys/fs/cgroup", group)):
            if parent.is_dir():
                parent.rmdir()
