"""What a running container uses, in the shape of the API."""

from __future__ import annotations

import os
import re
import time
from typing import Any

from drivetrain_engine.containers.record import Record, timestamp
from drivetrain_engine.containers.spec.cgroups import Cgroups, host_cgroups

Json = dict[str, Any]

_TICK = 10**9 // os.sysconf("SC_CLK_TCK")


def sample(record: Record, group: str) -> Json:
    """Return one sample of ``GET /containers/{id}/stats``, without the previous one's numbers.

    Args:
        record: of the container.
        group: path of its cgroup.
    """
    cgroups = host_cgroups()
    running = record.state.running and record.state.pid > 0
    found: Json = {
        "name": "/" + record.name,
        "id": record.id,
        "read": timestamp(time.time_ns()),
        "num_procs": 0,
        "pids_stats": {},
        "blkio_stats": {"io_service_bytes_recursive": None},
        "storage_stats": {},
        "cpu_stats": {"cpu_usage": {"total_usage": 0}, "throttling_data": {}},
        "memory_stats": {},
    }
    if not running:
        return found
    found["pids_stats"] = _pids(cgroups, group)
    found["cpu_stats"] = _cpu(cgroups, group)
    found["memory_stats"] = _memory(cgroups, group)
    found["blkio_stats"] = _block(cgroups, group)
    if networks := _networks(record.state.pid):
        found["networks"] = networks
    return found


def _numbers(text: str) -> dict[str, int]:
    """Read lines of a name and a number."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.strip().lstrip("-").isdigit():
            found[name] = int(value)
    return found


def _number(text: str) -> int:
    text = text.strip()
    return int(text) if text.isdigit() else 0


def _pids(cgroups: Cgroups, group: str) -> Json:
    found = {"current": _number(cgroups.read("pids", group, "pids.current"))}
    limit = cgroups.read("pids", group, "pids.max").strip()
    if limit.isdigit():
        found["limit"] = int(limit)
    return found


def _system_usage() -> int:
    """Return the processor time of the whole host in nanoseconds."""
    with open("/proc/stat") as file:
        fields = file.readline().split()[1:9]
    return sum(int(field) for field in fields) * _TICK


def _cpu(cgroups: Cgroups, group: str) -> Json:
    if cgroups.version == 2:
        numbers = _numbers(cgroups.read("cpu", group, "cpu.stat"))
        usage: Json = {
            "total_usage": numbers.get("usage_usec", 0) * 1000,
            "usage_in_kernelmode": numbers.get("system_usec", 0) * 1000,
            "usage_in_usermode": numbers.get("user_usec", 0) * 1000,
        }
        throttled = numbers.get("throttled_usec", 0) * 1000
    else:
        times = _numbers(cgroups.read("cpuacct", group, "cpuacct.stat"))
        per_cpu = cgroups.read("cpuacct", group, "cpuacct.usage_percpu").split()
        usage = {
            "total_usage": _number(cgroups.read("cpuacct", group, "cpuacct.usage")),
            "percpu_usage": [int(value) for value in per_cpu],
            "usage_in_kernelmode": times.get("system", 0) * _TICK,
            "usage_in_usermode": times.get("user", 0) * _TICK,
        }
        numbers = _numbers(cgroups.read("cpu", group, "cpu.stat"))
        throttled = numbers.get("throttled_time", 0)
    return {
        "cpu_usage": usage,
        "system_cpu_usage": _system_usage(),
        "online_cpus": os.cpu_count() or 1,
        "throttling_data": {
            "periods": numbers.get("nr_periods", 0),
            "throttled_periods": numbers.get("nr_throttled", 0),
            "throttled_time": throttled,
        },
    }


def _host_memory() -> int:
    with open("/proc/meminfo") as file:
        match = re.search(r"MemTotal:\s+(\d+)", file.read())
    return int(match[1]) * 1024 if match else 0


def _memory(cgroups: Cgroups, group: str) -> Json:
    numbers = _numbers(cgroups.read("memory", group, "memory.stat"))
    if cgroups.version == 2:
        usage = _number(cgroups.read("memory", group, "memory.current"))
        limit = _number(cgroups.read("memory", group, "memory.max"))
        found: Json = {"usage": usage, "stats": numbers}
    else:
        usage = _number(cgroups.read("memory", group, "memory.usage_in_bytes"))
        limit = _number(cgroups.read("memory", group, "memory.limit_in_bytes"))
        found = {
            "usage": usage,
            "max_usage": _number(cgroups.read("memory", group, "memory.max_usage_in_bytes")),
            "failcnt": _number(cgroups.read("memory", group, "memory.failcnt")),
            "stats": numbers,
        }
    total = _host_memory()
    found["limit"] = limit if 0 < limit < total else total
    return found


def _block(cgroups: Cgroups, group: str) -> Json:
    entries = []
    if cgroups.version == 2:
        for line in cgroups.read("io", group, "io.stat").splitlines():
            device, _, rest = line.partition(" ")
            major, _, minor = device.partition(":")
            for name, operation in (("rbytes", "read"), ("wbytes", "write")):
                match = re.search(rf"\b{name}=(\d+)", rest)
                if match and minor:
                    entries.append(_block_entry(major, minor, operation, match[1]))
    else:
        name = "blkio.throttle.io_service_bytes_recursive"
        text = cgroups.read("blkio", group, name) or cgroups.read(
            "blkio", group, "blkio.throttle.io_service_bytes"
        )
        for line in text.splitlines():
            match = re.fullmatch(r"(\d+):(\d+) (\w+) (\d+)", line.strip())
            if match:
                entries.append(_block_entry(match[1], match[2], match[3].lower(), match[4]))
    return {"io_service_bytes_recursive": entries or None}


def _block_entry(major: str, minor: str, operation: str, value: str) -> Json:
    return {"major": int(major), "minor": int(minor), "op": operation, "value": int(value)}


def _networks(pid: int) -> Json:
    try:
        with open(f"/proc/{pid}/net/dev") as file:
            lines = file.read().splitlines()[2:]
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, _, rest = line.partition(":")
        fields = [int(field) for field in rest.split()]
        if name.strip() == "lo" or len(fields) < 12:
            continue
        found[name.strip()] = {
            "rx_bytes": fields[0], "rx_packets": fields[1], "rx_errors": fields[2],
            "rx_dropped": fields[3], "tx_bytes": fields[8], "tx_packets": fields[9],
            "tx_errors": fields[10], "tx_dropped": fields[11],
        }  # fmt: skip
    return found
