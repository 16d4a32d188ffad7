"""The flags of ``run`` and ``create`` as data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from drivetrain_engine.cli.flags import option

F = TypeVar("F", bound=Callable[..., Any])

FLAGS = (
    (("-i", "--interactive"), "Keep stdin open even if not attached"),
    (("-t", "--tty"), "Allocate a pseudo-terminal"),
    (("--privileged",), "Give extended privileges to this container"),
    (("-P", "--publish-all"), "Publish all exposed ports to random ports"),
    (("--read-only",), "Mount the container's root file system read-only"),
    (("--init",), "Run an init inside that forwards signals and reaps processes"),
    (("--no-healthcheck",), "Disable any HEALTHCHECK of the image"),
    (("--oom-kill-disable",), "Disable the OOM killer"),
    (("-q", "--quiet"), "Do not show how a pull goes"),
)

MANY = (
    (("-a", "--attach"), "Attach to stdin, stdout or stderr"),
    (("-e", "--env"), "Set an environment variable (NAME=value, or NAME from ours)"),
    (("--env-file",), "Read a file of environment variables"),
    (("-v", "--volume"), "Mount a directory or volume ([source:]target[:options])"),
    (("--mount",), "Attach a mount (type=bind|volume|tmpfs,source=…,target=…)"),
    (("--tmpfs",), "Mount a tmpfs (path[:options])"),
    (("--volumes-from",), "Mount the volumes of another container (name[:ro])"),
    (("-p", "--publish"), "Publish a port ([[address:]host:]container[/protocol])"),
    (("--expose",), "Expose a port or a range"),
    (("--network", "--net"), "Join a network (bridge, host, none, container:x, or a name)"),
    (("--network-alias", "--net-alias"), "A further name on the network"),
    (("--link",), "Link to another container (name[:alias])"),
    (("--link-local-ip",), "A link-local address"),
    (("--cap-add",), "Add a capability"),
    (("--cap-drop",), "Drop a capability"),
    (("--security-opt",), "Security options (no-new-privileges, seccomp=…)"),
    (("--ulimit",), "Set a limit (name=soft[:hard])"),
    (("-l", "--label"), "Set a label (key=value)"),
    (("--label-file",), "Read a file of labels"),
    (("--log-driver",), "A log driver of this container; may be given more than once"),
    (("--log-opt",), "An option of the log drivers ([driver:]key=value)"),
    (("--storage-opt",), "An option of the storage driver (key=value)"),
    (("--device",), "Give a device (host[:container][:rwm])"),
    (("--device-cgroup-rule",), "Add a rule to the allowed devices"),
    (("--device-read-bps",), "Limit reading from a device (path:bytes per second)"),
    (("--device-write-bps",), "Limit writing to a device (path:bytes per second)"),
    (("--device-read-iops",), "Limit reads from a device (path:operations per second)"),
    (("--device-write-iops",), "Limit writes to a device (path:operations per second)"),
    (("--blkio-weight-device",), "Relative weight of a device (path:weight)"),
    (("--group-add",), "Join a further group"),
    (("--sysctl",), "Set a kernel parameter (key=value)"),
    (("--add-host",), "Add a line to /etc/hosts (name:address)"),
    (("--dns",), "Use a DNS server"),
    (("--dns-search",), "A DNS search domain"),
    (("--dns-option", "--dns-opt"), "A resolver option"),
    (("--annotation",), "Add an annotation for the OCI runtime (key=value)"),
)

TEXT = (
    (("--name",), "Name the container"),
    (("-w", "--workdir"), "Working directory inside the container"),
    (("-u", "--user"), "User (name|uid[:group|gid])"),
    (("--ip",), "IPv4 address on the network"),
    (("--ip6",), "IPv6 address on the network"),
    (("--mac-address",), "MAC address"),
    (("-h", "--hostname"), "Host name inside the container"),
    (("--domainname",), "NIS domain name inside the container"),
    (("-m", "--memory"), "Memory limit"),
    (("--memory-swap",), "Limit of memory plus swap; -1: unlimited"),
    (("--memory-reservation",), "Soft memory limit"),
    (("--kernel-memory",), "Limit of kernel memory"),
    (("--cpus",), "Number of CPUs"),
    (("--cpuset-cpus",), "CPUs to run on (0-3, 0,1)"),
    (("--cpuset-mems",), "Memory nodes to use (0-3, 0,1)"),
    (("--storage-driver",), "Storage driver of this container"),
    (("--volume-driver",), "Volume driver for the volumes that are made"),
    (("--stop-signal",), "Signal that stops the container"),
    (("--shm-size",), "Size of /dev/shm"),
    (("--ipc",), "IPC mode"),
    (("--pid",), "PID namespace"),
    (("--uts",), "UTS namespace"),
    (("--userns",), "User namespace"),
    (("--cgroupns",), "Cgroup namespace (host|private)"),
    (("--cgroup-parent",), "Parent cgroup"),
    (("--runtime",), "OCI runtime"),
    (("--cidfile",), "Write the container's id to a file"),
    (("--health-cmd",), "Command that checks health"),
    (("--health-interval",), "Time between checks"),
    (("--health-timeout",), "Longest time of a check"),
    (("--health-start-period",), "Time to start before failures count"),
    (("--health-start-interval",), "Time between checks during the start period"),
    (("--platform",), "Platform (os/architecture)"),
    (("--gpus",), "GPU devices to add"),
    (("--isolation",), "Accepted for docker's sake"),
)

NUMBERS = (
    (("-c", "--cpu-shares"), "CPU shares (relative weight)"),
    (("--cpu-period",), "CFS period in microseconds"),
    (("--cpu-quota",), "CFS quota in microseconds"),
    (("--cpu-rt-period",), "Real-time period in microseconds"),
    (("--cpu-rt-runtime",), "Real-time runtime in microseconds"),
    (("--pids-limit",), "Limit of processes; -1: unlimited"),
    (("--stop-timeout",), "Seconds to wait before the container is killed"),
    (("--memory-swappiness",), "Swappiness (0 to 100)"),
    (("--blkio-weight",), "Relative I/O weight (10 to 1000)"),
    (("--oom-score-adj",), "OOM preference (-1000 to 1000)"),
    (("--health-retries",), "Failures in a row that mean unhealthy"),
)


def run_flags(function: F) -> F:
    """Declare the flags that ``run`` and ``create`` share."""
    for names, text in reversed(NUMBERS):
        function = option(*names, type=int, help=text)(function)
    for names, text in reversed(TEXT):
        function = option(*names, help=text)(function)
    function = option("--restart", default="", help="Restart policy")(function)
    function = option("--entrypoint", default=None, help="Replace the ENTRYPOINT")(function)
    function = option(
        "--pull",
        default="missing",
        type=click.Choice(["always", "missing", "never"]),
        help="Pull the image before running (always, missing, never)",
    )(function)
    for names, text in reversed(MANY):
        function = option(*names, multiple=True, help=text)(function)
    for names, text in reversed(FLAGS):
        function = option(*names, is_flag=True, default=False, help=text)(function)
    return function
