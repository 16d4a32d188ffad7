"""What the host is and can, for ``info``; what cannot change is looked up once."""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


@cache
def operating_system() -> tuple[str, str]:
    """Return the name and the version that /etc/os-release tells."""
    fields = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', _read("/etc/os-release"), re.MULTILINE))
    return fields.get("PRETTY_NAME", "Linux"), fields.get("VERSION_ID", "")


def memory_total() -> int:
    """Return the host's memory in bytes."""
    match = re.search(r"^MemTotal:\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def host() -> dict[str, Any]:
    """Return the fields of ``info`` that describe the machine."""
    name, version = operating_system()
    return {
        "KernelVersion": os.uname().release,
        "OperatingSystem": name,
        "OSVersion": version,
        "OSType": "linux",
        "Architecture": os.uname().machine,
        "NCPU": len(os.sched_getaffinity(0)),
        "MemTotal": memory_total(),
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Isolation": "",
    }


@cache
def cgroup_mounts() -> dict[str, str]:
    """Return the mount point of each cgroup v1 controller, and of v2 under the empty name."""
    found: dict[str, str] = {}
    for line in _read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields = right.split()
        if not fields:
            continue
        target = left.split()[4]
        if fields[0] == "cgroup2":
            found.setdefault("", target)
        elif fields[0] == "cgroup":
            for option in fields[2].split(","):
                found.setdefault(option, target)
    return found


def capabilities() -> dict[str, Any]:
    """Return the fields of ``info`` that tell which limits work here."""
    mounts = cgroup_mounts()
    unified = "" in mounts and not any(mounts.get(name) for name in ("memory", "cpu", "pids"))
    if unified:
        controllers = set(_read(f"{mounts['']}/cgroup.controllers").split())

        def has(controller: str, file: str) -> bool:
            return controller in controllers
    else:

        def has(controller: str, file: str) -> bool:
            base = mounts.get(controller)
            return base is not None and os.path.exists(os.path.join(base, file))

    return {
        "MemoryLimit": has("memory", "memory.limit_in_bytes"),
        "SwapLimit": has("memory", "memory.memsw.limit_in_bytes"),
        "CpuCfsPeriod": has("cpu", "cpu.cfs_period_us"),
        "CpuCfsQuota": has("cpu", "cpu.cfs_quota_us"),
        "CPUShares": has("cpu", "cpu.shares"),
        "CPUSet": has("cpuset", "cpuset.cpus"),
        "PidsLimit": "pids" in mounts or has("pids", "cgroup.procs"),
        "OomKillDisable": not unified and has("memory", "memory.oom_control"),
        "IPv4Forwarding": _read("/proc/sys/net/ipv4/ip_forward").strip() == "1",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if unified else "1",
    }


def security_options(seccomp_profile: str) -> list[str]:
    """Return what confines containers."""
    found = []
    if "Seccomp:" in _read("/proc/self/status"):
        found.append(f"name=seccomp,profile={seccomp_profile or 'builtin'}")
    if _read("/sys/module/apparmor/parameters/enabled").strip() == "Y":
        found.append("name=apparmor")
    return found


@cache
def runtime_version(path: str) -> str:
    """Return the version of an OCI runtime; empty when it does not tell."""
    if not path:
        return ""
    try:
        output = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=5, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    match = re.search(r"version\s+(\S+)", output)
    return match[1] if match else ""
