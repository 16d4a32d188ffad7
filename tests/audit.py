"""An audit of a host: its records against everything that the kernel and the disk have of it.

Every object of a container belongs to one record, and every record has its objects. What is looked
at is looked up by other means than the engine's: /proc, /sys, ``ip``, ``nft``, the directories, and
the state's file.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.unixapi import Api

from drivetrain.testing.hosts import Host

Json = dict[str, Any]


class Audit:
    """One look at a host whose daemon answers.

    Args:
        host: its containers have a word in their command line that no other process has.
        group: the parent of its cgroups.
        marker: that word.
    """

    def __init__(self, host: Host, group: str, marker: str) -> None:
        self._host = host
        self._group = group
        self._marker = marker
        api = Api(host.socket)
        self.containers: dict[str, Json] = {}
        for summary in api.get("/containers/json?all=1"):
            status, found = api.ask("GET", f"/containers/{summary['Id']}/json")
            if status == 200:
                self.containers[summary["Id"]] = found
        self.running = {name for name, found in self.containers.items() if found["State"]["Pid"]}
        self.networks: dict[str, Json] = {n["Name"]: n for n in api.get("/networks")}
        self.volumes = {v["Name"] for v in api.get("/volumes")["Volumes"] or ()}

    def faults(self) -> list[str]:
        """Name what is there without a record, and what is missing."""
        return [
            *self._directories(),
            *self._mounts(),
            *self._processes(),
            *self._cgroups(),
            *self._links(),
            *self._rules(),
            *self._records(),
        ]

    def _compare(self, what: str, found: Iterable[str], wanted: Iterable[str]) -> list[str]:
        found, wanted = set(found), set(wanted)
        return [f"{what} of nobody: {name}" for name in sorted(found - wanted)] + [
            f"{what} is missing: {name}" for name in sorted(wanted - found)
        ]

    # the disk

    def _directories(self) -> list[str]:
        data, run = self._host.data_root, self._host.exec_root
        layers = {row["id"].rpartition("/")[2] for row in self._rows("layers")}
        sandboxes = {one[:32] for one in self._with_network()}
        shared = {
            one
            for one in self.running
            if self.containers[one]["HostConfig"]["IpcMode"] == "shareable"
        }
        places: tuple[tuple[Path, set[str]], ...] = (
            (data / "containers", set(self.containers)),
            (data / "mounts", self.running),
            (data / "storage" / "overlay2", layers | {"l"}),
            (data / "volumes" / "local", self.volumes),
            (run / "bundles", self.running),
            (run / "c", {one[:20] for one in self.running}),
            (run / "runtime", self.running),
            (run / "netns", sandboxes),
            (run / "shm", shared),
        )
        faults = []
        for place, wanted in places:
            found = {entry.name for entry in place.iterdir()} if place.is_dir() else set()
            faults += self._compare(f"directory in {place}", found, wanted)
        links = data / "storage" / "overlay2" / "l"
        dangling = [link.name for link in links.iterdir() if not link.exists()]
        faults += [f"link to nowhere: {name}" for name in dangling]
        count = len(list(links.iterdir()))
        if count != len(layers):
            faults.append(f"{count} links for {len(layers)} layers")
        return faults

    def _mounts(self) -> list[str]:
        data, run = self._host.data_root, self._host.exec_root
        wanted = [str(data / "mounts" / one) for one in self.running]
        wanted += [str(run / "netns" / one[:32]) for one in self._with_network()]
        wanted += [
            str(run / "shm" / one)
            for one in self.running
            if self.containers[one]["HostConfig"]["IpcMode"] == "shareable"
        ]
        found = self._host.mounts()
        twice = [path for path in set(found) if found.count(path) > 1]
        return [f"mounted twice: {path}" for path in twice] + self._compare("mount", found, wanted)

    # the kernel

    def _processes(self) -> list[str]:
        """Shims by their names, containers by the word in their command lines."""
        shims: list[str] = []
        inits: list[str] = []
        faults = []
        for entry in Path("/proc").iterdir():
            try:
                command = (entry / "cmdline").read_bytes()
                name = (entry / "comm").read_text().strip()
            except OSError:
                continue
            words = command.split(b"\0")
            if name.startswith("shim:") and str(self._host.exec_root).encode() in words:
                shims.append(name.removeprefix("shim:"))
            elif self._marker.encode() in words and b"run" not in words:
                inits.append(entry.name)
            elif words[0].rpartition(b"/")[2] in (b"crun", b"runc") and any(
                str(self._host.exec_root).encode() in word for word in words
            ):
                faults.append(f"a runtime runs: {command.replace(bytes(1), b' ').decode()}")
        pids = [str(self.containers[one]["State"]["Pid"]) for one in self.running]
        faults += self._compare("process", inits, pids)
        faults += self._compare("shim", shims, [one[:10] for one in self.running])
        if len(shims) != len(set(shims)):
            faults.append(f"a container with two shims: {sorted(shims)}")
        return faults

    def _cgroups(self) -> list[str]:
        base = Path("/sys/fs/cgroup")
        found = {
            entry.name
            for parent in (*base.glob(f"*/{self._group}"), base / self._group)
            if parent.is_dir()
            for entry in parent.iterdir()
            if entry.is_dir()
        }
        return self._compare("cgroup", found, self.running)

    def _with_network(self) -> set[str]:
        """The running containers that have a namespace of the engine's making."""
        return {
            one
            for one in self.running
            if self.containers[one]["HostConfig"]["NetworkMode"] != "host"
        }

    def _links(self) -> list[str]:
        done = subprocess.run(
            ["ip", "-n", self._host.netns, "-j", "-d", "link"], capture_output=True, check=True
        )
        links = json.loads(done.stdout)
        kinds = {link["ifname"]: link.get("linkinfo", {}).get("info_kind") for link in links}
        bridges = {name for name, kind in kinds.items() if kind == "bridge"}
        faults = self._compare("bridge", bridges, self._bridges().values())
        for name, bridge in self._bridges().items():
            ports = [link["ifname"] for link in links if link.get("master") == bridge]
            wanted = [
                one
                for one in self.running
                if name in self.containers[one]["NetworkSettings"]["Networks"]
            ]
            if len(ports) != len(wanted):
                faults.append(f"{bridge}: {len(ports)} links for {len(wanted)} containers")
        others = [
            link["ifname"]
            for link in links
            if link["ifname"] not in {"lo", *bridges} and link.get("master") not in bridges
        ]
        return faults + [f"link of nobody: {name}" for name in others]

    def _bridges(self) -> dict[str, str]:
        return {
            name: (found["Options"] or {}).get("com.docker.network.bridge.name")
            or f"br-{found['Id'][:12]}"
            for name, found in self.networks.items()
            if found["Driver"] == "bridge"
        }

    def _rules(self) -> list[str]:
        done = subprocess.run(
            [*self._host.inside, "nft", "-j", "list", "table", "inet", "engine"],
            capture_output=True,
            check=True,
        )
        entries = json.loads(done.stdout)["nftables"]
        published: set[str] = set()
        opened: set[str] = set()
        for entry in entries:
            found = entry.get("map") or entry.get("set") or {}
            if found.get("name") in ("any4", "at4"):
                published |= {json.dumps(pair) for pair in found.get("elem", ())}
            elif found.get("name") == "open4":
                opened |= {json.dumps(element["concat"]) for element in found.get("elem", ())}
        ports = self._ports()
        faults = self._compare("published port", published, {json.dumps(p) for p, _ in ports})
        faults += self._compare("open port", opened, {json.dumps(o) for _, o in ports})
        # Those of a network are called after its bridge; the others belong to the whole table.
        chains = {entry["chain"]["name"] for entry in entries if "chain" in entry}
        own = {
            f"{kind}-{bridge}"
            for bridge in self._bridges().values()
            for kind in ("in", "out", "post")
        }
        found_own = {name for name in chains if name.partition("-")[0] in ("in", "out", "post")}
        return faults + self._compare("chain", found_own, own)

    def _ports(self) -> list[tuple[list[Json], list[Any]]]:
        """The elements that the published ports of all running containers stand for."""
        found: list[tuple[list[Json], list[Any]]] = []
        for one in self.running:
            settings = self.containers[one]["NetworkSettings"]
            addresses = [n["IPAddress"] for n in settings["Networks"].values() if n["IPAddress"]]
            for key, places in settings["Ports"].items():
                number, _, protocol = key.partition("/")
                for place in places or ():
                    if ":" in place["HostIp"]:
                        continue
                    inner = [addresses[0], int(number)]
                    outer: list[Any] = [protocol, int(place["HostPort"])]
                    if place["HostIp"] != "0.0.0.0":
                        outer.insert(0, place["HostIp"])
                    found.append(
                        ([{"concat": outer}, {"concat": inner}], [inner[0], protocol, inner[1]])
                    )
        return found

    # the state

    def _rows(self, kind: str) -> list[Json]:
        uri = f"file:{self._host.data_root / 'state.db'}?mode=ro"
        with sqlite3.connect(uri, uri=True) as connection:
            rows = connection.execute("SELECT id, body FROM documents WHERE kind = ?", (kind,))
            return [{"id": name, **json.loads(body)} for name, body in rows]

    def _records(self) -> list[str]:
        known = set(self.containers)
        faults = self._compare("record", {row["id"] for row in self._rows("containers")}, known)
        layers = {row["container"] for row in self._rows("layers") if row["container"]}
        faults += self._compare("layer", layers, known)
        endpoints = {row["container"] for row in self._rows("endpoints")}
        faults += [f"endpoint of nobody: {one}" for one in sorted(endpoints - known)]
        sandboxes = {row["id"] for row in self._rows("sandboxes")}
        faults += self._compare("sandbox", sandboxes, self.running)
        joined = {row["container"] for row in self._rows("endpoints") if row["joined"]}
        faults += self._compare("joined endpoint", joined, self.running)
        for row in self._rows("volumes"):
            users = set(row["users"]) | set(row["mounted"])
            faults += [f"volume {row['id']} of nobody: {one}" for one in sorted(users - known)]
            if not users:
                faults.append(f"a volume that no container uses: {row['id']}")
        return faults
