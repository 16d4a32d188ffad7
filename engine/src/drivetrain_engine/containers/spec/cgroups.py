"""Control groups: which ones the host has, where a container's are, and reading and writing them.

Version 1 has a hierarchy per controller, version 2 one for all; hosts that mount both are version
1 to us, as to the runtimes.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from drivetrain_engine.containers.request.hostconfig import Resources

_BASE = Path("/sys/fs/cgroup")
_PERIOD = 100_000


class Cgroups:
    """The host's control groups.

    Attributes:
        version: 1 or 2.
        controllers: mount point by controller; all the same in version 2.
    """

    def __init__(self, base: Path = _BASE) -> None:
        self.base = base
        if (base / "cgroup.controllers").exists():
            self.version = 2
            names = (base / "cgroup.controllers").read_text().split()
            self.controllers = dict.fromkeys(names, base)
        else:
            self.version = 1
            self.controllers = {}
            for name in ("memory", "cpu", "cpuacct", "cpuset", "pids", "devices", "freezer",
                         "blkio", "hugetlb", "net_cls", "net_prio", "perf_event"):  # fmt: skip
                if (base / name).is_dir():
                    self.controllers[name] = base / name

    def has(self, controller: str) -> bool:
        """Tell whether a controller can be used."""
        return controller in self.controllers

    @property
    def swap(self) -> bool:
        """Whether swap can be limited."""
        if self.version == 2:
            return self.has("memory") and Path("/proc/swaps").exists()
        return (self._at("memory") / "memory.memsw.limit_in_bytes").exists()

    @property
    def quota(self) -> bool:
        """Whether processor time can be limited."""
        return self.version == 2 or (self._at("cpu") / "cpu.cfs_quota_us").exists()

    @property
    def block_weight(self) -> bool:
        """Whether block I/O can be weighed."""
        if self.version == 2:
            return self.has("io") and (self.base / "engine" / "io.bfq.weight").exists()
        return any((self._at("blkio") / name).exists() for name in _WEIGHTS)

    def available(self, kind: str) -> str:
        """Return the processors (``cpus``) or memory nodes (``mems``) there are, or nothing."""
        base = self._at("cpuset")
        for name in (f"cpuset.{kind}.effective", f"cpuset.effective_{kind}", f"cpuset.{kind}"):
            try:
                return (base / name).read_text().strip()
            except OSError:
                continue
        return ""

    def _at(self, controller: str) -> Path:
        return self.controllers.get(controller, self.base / controller)

    # one container

    def directory(self, controller: str, path: str) -> Path:
        """Return the directory of a container's group.

        Args:
            controller: such as ``memory``.
            path: of the group, as in the OCI spec: ``/engine/…``.
        """
        return self._at(controller) / path.lstrip("/")

    def read(self, controller: str, path: str, name: str) -> str:
        """Return the content of a file; empty when it is not there."""
        try:
            return (self.directory(controller, path) / name).read_text()
        except OSError:
            return ""

    def directories(self, path: str) -> list[Path]:
        """Return all existing directories of a group."""
        roots = set(self.controllers.values()) or {self.base}
        if self.version == 1:
            roots |= {self.base / "systemd", self.base / "unified"}
        found = [root / path.lstrip("/") for root in sorted(roots)]
        return [directory for directory in found if directory.is_dir()]

    def pids(self, path: str) -> list[int]:
        """Return the processes in a group and those below it."""
        found: set[int] = set()
        for directory in self.directories(path)[:1] if self.version == 2 else self._main(path):
            for below, _, files in os.walk(directory):
                if "cgroup.procs" in files:
                    try:
                        text = Path(below, "cgroup.procs").read_text()
                    except OSError:
                        continue
                    found.update(int(line) for line in text.split())
        return sorted(found)

    def _main(self, path: str) -> Iterator[Path]:
        for controller in ("devices", "memory", "pids", "cpu"):
            directory = self.directory(controller, path)
            if directory.is_dir():
                yield directory
                return

    def remove(self, path: str, patience: float = 5.0) -> None:
        """Kill whatever is in a group and remove it; nothing there is fine.

        Args:
            path: of the group.
            patience: seconds to wait for the processes to end.
        """
        deadline = time.monotonic() + patience
        while directories := self.directories(path):
            for directory in directories:
                for below, _, _ in os.walk(directory, topdown=False):
                    try:
                        Path(below).rmdir()
                    except OSError:
                        _kill_all(Path(below))
            if time.monotonic() > deadline:
                return
            if self.directories(path):
                time.sleep(0.01)

    def update(self, path: str, limits: Resources) -> None:
        """Write limits to a running container's group; zeros and ``None`` are left as they are.

        Raises:
            OSError: the kernel refuses a value.
        """
        writes = self._writes_v2(limits) if self.version == 2 else self._writes_v1(limits)
        for controller, name, value in writes:
            place = self.directory(controller, path) / name
            if place.exists():
                place.write_text(value)
        if limits.memory or limits.memory_swap:
            self._update_memory(path, limits)

    def _update_memory(self, path: str, limits: Resources) -> None:
        """Write memory limits in an order in which each step is allowed."""
        if self.version == 2:
            memory, swap = "memory.max", "memory.swap.max"
            swap_value = "max"
            if limits.memory_swap > 0:
                swap_value = str(limits.memory_swap - limits.memory)
        else:
            memory, swap = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
            swap_value = str(limits.memory_swap or limits.memory * 2)
        pairs = [(memory, str(limits.memory or -1)), (swap, swap_value)]
        place = self.directory("memory", path)
        for attempt in (pairs, pairs[::-1]):
            try:
                for name, value in attempt:
                    if (place / name).exists():
                        (place / name).write_text(value)
                return
            except OSError:
                if attempt is not pairs:
                    raise

    @staticmethod
    def _writes_v1(limits: Resources) -> Iterator[tuple[str, str, str]]:
        quota, period = cpu_quota(limits)
        if limits.cpu_shares:
            yield "cpu", "cpu.shares", str(limits.cpu_shares)
        if period:
            yield "cpu", "cpu.cfs_period_us", str(period)
        if quota:
            yield "cpu", "cpu.cfs_quota_us", str(quota)
        if limits.cpuset_cpus:
            yield "cpuset", "cpuset.cpus", limits.cpuset_cpus
        if limits.cpuset_mems:
            yield "cpuset", "cpuset.mems", limits.cpuset_mems
        if limits.pids_limit:
            yield "pids", "pids.max", str(limits.pids_limit)
        if limits.memory_reservation:
            yield "memory", "memory.soft_limit_in_bytes", str(limits.memory_reservation)
        if limits.blkio_weight:
            for name in _WEIGHTS:
                yield "blkio", name, str(limits.blkio_weight)

    @staticmethod
    def _writes_v2(limits: Resources) -> Iterator[tuple[str, str, str]]:
        quota, period = cpu_quota(limits)
        if limits.cpu_shares:
            yield "cpu", "cpu.weight", str(weight_of_shares(limits.cpu_shares))
        if quota or period:
            yield "cpu", "cpu.max", f"{quota if quota > 0 else 'max'} {period or _PERIOD}"
        if limits.cpuset_cpus:
            yield "cpuset", "cpuset.cpus", limits.cpuset_cpus
        if limits.cpuset_mems:
            yield "cpuset", "cpuset.mems", limits.cpuset_mems
        if limits.pids_limit:
            yield "pids", "pids.max", str(limits.pids_limit)
        if limits.memory_reservation:
            yield "memory", "memory.low", str(limits.memory_reservation)


_WEIGHTS = ("blkio.weight", "blkio.bfq.weight")


def _kill_all(directory: Path) -> None:
    try:
        pids = (directory / "cgroup.procs").read_text().split()
    except OSError:
        return
    for pid in pids:
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass


def cpu_quota(limits: Resources) -> tuple[int, int]:
    """Return quota and period in microseconds; zeros: none of their own."""
    if limits.nano_cpus:
        return limits.nano_cpus * _PERIOD // 10**9, _PERIOD
    return limits.cpu_quota, limits.cpu_period


def weight_of_shares(shares: int) -> int:
    """Return the version 2 weight (1 to 10000) of version 1 shares (2 to 262144)."""
    return 1 + (max(2, min(shares, 262144)) - 2) * 9999 // 262142


def cgroup_path(container_id: str, parent: str, default: str) -> str:
    """Return a container's group: below ``--cgroup-parent``, or else the daemon's."""
    base = "/" + (parent or default).strip("/")
    return f"{base.rstrip('/')}/{container_id}"


@cache
def host_cgroups() -> Cgroups:
    """Return the groups of this host."""
    return Cgroups()
