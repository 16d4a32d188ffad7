"""The flags of the daemon, by dockerd's names, and the ``daemon.json`` key of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import click

from drivetrain_engine.cli.flags import option
from drivetrain_engine.cli.values import pairs

F = TypeVar("F", bound=Callable[..., Any])


class DaemonFlag(NamedTuple):
    """One flag.

    Attributes:
        names: ``-s``, ``--storage-driver``.
        kind: ``text``, ``bool``, ``int``, ``list`` or ``map`` (repeated key=value).
        help: one line.
        key: in ``daemon.json``; empty: the long name.
    """

    names: tuple[str, ...]
    kind: str
    help: str
    key: str = ""

    @property
    def setting(self) -> str:
        """The key in ``daemon.json``."""
        return self.key or self.names[-1].removeprefix("--")

    @property
    def parameter(self) -> str:
        """The name of click's parameter."""
        return "daemon_" + self.setting.replace("-", "_")


DAEMON_FLAGS = (
    DaemonFlag(("-H", "--host"), "list", "Socket to listen on, or to talk to", "hosts"),
    DaemonFlag(("--data-root",), "text", "Directory of what persists (/var/lib/engine)"),
    DaemonFlag(("--exec-root",), "text", "Directory of what runs (/run/engine)"),
    DaemonFlag(("-s", "--storage-driver"), "text", "Storage driver"),
    DaemonFlag(("--storage-driver-priority",), "list", "Storage drivers to try, best first"),
    DaemonFlag(("--storage-opt",), "list", "Storage driver option (key=value)", "storage-opts"),
    DaemonFlag(("--log-driver",), "text", "Default log driver of containers (json-file)"),
    DaemonFlag(("--log-opt",), "map", "Default log option (key=value)", "log-opts"),
    DaemonFlag(("--log-cache-driver",), "text", "Log driver of the copy for `logs` (local)"),
    DaemonFlag(("-D", "--debug"), "bool", "Debug output, and tracebacks"),
    DaemonFlag(("-l", "--log-level"), "text", "debug, info, warn, error or fatal"),
    DaemonFlag(("-G", "--group"), "text", "Group that owns the unix socket (engine)"),
    DaemonFlag(("-p", "--pidfile"), "text", "File for the daemon's process id"),
    DaemonFlag(("--label",), "list", "Label of the daemon (key=value)", "labels"),
    DaemonFlag(("--add-runtime",), "map", "Register an OCI runtime (name=path)", "runtimes"),
    DaemonFlag(("--default-runtime",), "text", "OCI runtime of containers"),
    DaemonFlag(("--cgroup-parent",), "text", "Parent cgroup of all containers"),
    DaemonFlag(
        ("--default-ulimit",), "list", "Ulimit of containers (name=soft[:hard])", "default-ulimits"
    ),
    DaemonFlag(("--default-shm-size",), "text", "Size of /dev/shm of containers (64m)"),
    DaemonFlag(("--default-ipc-mode",), "text", "IPC mode of containers (private|shareable)"),
    DaemonFlag(("--default-cgroupns-mode",), "text", "Cgroup namespace mode (host|private)"),
    DaemonFlag(("--init",), "bool", "Run an init in every container"),
    DaemonFlag(("--init-path",), "text", "Path of that init"),
    DaemonFlag(("--no-new-privileges",), "bool", "Set no-new-privileges for all containers"),
    DaemonFlag(("--seccomp-profile",), "text", "Seccomp profile (a file, builtin, unconfined)"),
    DaemonFlag(("--oom-score-adjust",), "int", "oom_score_adj of the daemon"),
    DaemonFlag(("--live-restore",), "bool", "Keep containers alive without the daemon (true)"),
    DaemonFlag(("--shutdown-timeout",), "int", "Seconds that containers have at shutdown"),
    DaemonFlag(("--idle-timeout",), "text", "Leave when idle for so long (0: never)"),
    DaemonFlag(("-b", "--bridge"), "text", "Attach containers to a bridge of the user's"),
    DaemonFlag(("--bip",), "text", "Address of the default bridge (address/length)"),
    DaemonFlag(("--bip6",), "text", "IPv6 address of the default bridge (address/length)"),
    DaemonFlag(("--fixed-cidr",), "text", "IPv4 range for containers on it"),
    DaemonFlag(("--fixed-cidr-v6",), "text", "IPv6 range for containers on it"),
    DaemonFlag(("--default-gateway",), "text", "IPv4 gateway of containers"),
    DaemonFlag(("--default-gateway-v6",), "text", "IPv6 gateway of containers"),
    DaemonFlag(
        ("--default-address-pool",),
        "list",
        "Pool for new networks (base=…,size=…)",
        "default-address-pools",
    ),
    DaemonFlag(("--cluster-store",), "text", "Store that hosts share (etcd://host:port,…/path)"),
    DaemonFlag(
        ("--cluster-store-opt",), "map", "Option of it (kv.cacertfile=…)", "cluster-store-opts"
    ),
    DaemonFlag(("--cluster-advertise",), "text", "This host's address or interface for others"),
    DaemonFlag(("--data-path-addr",), "text", "Address or interface for container traffic"),
    DaemonFlag(("--data-path-port",), "int", "UDP port of container traffic (4789)"),
    DaemonFlag(("--mtu",), "int", "MTU of container networks"),
    DaemonFlag(("--ipv6",), "bool", "Enable IPv6 on the default bridge"),
    DaemonFlag(("--icc",), "bool", "Let containers talk to each other (true)"),
    DaemonFlag(("--ip-masq",), "bool", "Masquerade what containers send (true)"),
    DaemonFlag(("--ip-forward",), "bool", "Enable forwarding in the kernel (true)"),
    DaemonFlag(("--iptables",), "bool", "Set firewall rules (true)"),
    DaemonFlag(("--ip6tables",), "bool", "Set IPv6 firewall rules (true)"),
    DaemonFlag(("--userland-proxy",), "bool", "As dockerd's; there is none"),
    DaemonFlag(("--ip",), "text", "Default address for published ports (0.0.0.0)"),
    DaemonFlag(("--dns",), "list", "DNS server of containers"),
    DaemonFlag(("--dns-opt",), "list", "Resolver option of containers", "dns-opts"),
    DaemonFlag(("--dns-search",), "list", "DNS search domain of containers"),
    DaemonFlag(("--host-gateway-ip",), "text", "Address of host-gateway in --add-host"),
    DaemonFlag(("--tls",), "bool", "Use TLS"),
    DaemonFlag(("--tlsverify",), "bool", "Use TLS and verify the other side"),
    DaemonFlag(("--tlscacert",), "text", "Certificates to trust"),
    DaemonFlag(("--tlscert",), "text", "Our certificate"),
    DaemonFlag(("--tlskey",), "text", "Our key"),
    DaemonFlag(("--metrics-addr",), "text", "Address to serve metrics on"),
    DaemonFlag(("--experimental",), "bool", "As dockerd's"),
    DaemonFlag(("--selinux-enabled",), "bool", "As dockerd's"),
    DaemonFlag(("--userns-remap",), "text", "User namespace remapping"),
    DaemonFlag(("--exec-opt",), "list", "Runtime option (native.cgroupdriver=…)", "exec-opts"),
    DaemonFlag(("--insecure-registry",), "list", "Registry without TLS", "insecure-registries"),
    DaemonFlag(("--registry-mirror",), "list", "Mirror of Docker Hub", "registry-mirrors"),
    DaemonFlag(("--max-concurrent-downloads",), "int", "Layers at once in a pull (3)"),
    DaemonFlag(("--max-concurrent-uploads",), "int", "Layers at once in a push (5)"),
    DaemonFlag(("--max-download-attempts",), "int", "Attempts for each layer (5)"),
    DaemonFlag(("--config-file",), "text", "Configuration (/etc/engine/daemon.json)"),
)


def daemon_flags(function: F) -> F:
    """Declare all of them as click options."""
    for flag in reversed(DAEMON_FLAGS):
        settings: dict[str, Any] = {"help": flag.help}
        if flag.kind == "bool":
            settings.update(is_flag=True, default=False)
        elif flag.kind == "int":
            settings.update(type=int)
        elif flag.kind in ("list", "map"):
            settings.update(multiple=True)
        function = option(*flag.names, flag.parameter, **settings)(function)
    return function


def given_settings(ctx: click.Context, parameters: Mapping[str, Any]) -> dict[str, object]:
    """Return what was given on the command line, by ``daemon.json`` key."""
    given: dict[str, object] = {}
    for flag in DAEMON_FLAGS:
        source = ctx.get_parameter_source(flag.parameter)
        if source is not click.core.ParameterSource.COMMANDLINE:
            continue
        value = parameters[flag.parameter]
        if flag.setting == "runtimes":
            value = {name: {"path": path} for name, path in pairs(value, "--add-runtime").items()}
        elif flag.kind == "map":
            value = pairs(value, flag.names[-1], required=True)
        elif flag.kind == "list":
            value = list(value)
        given[flag.setting] = value
    return given


def as_arguments(given: Mapping[str, object]) -> list[str]:
    """Return the command line of ``given``; the inverse of :func:`given_settings`."""
    arguments: list[str] = []
    for flag in DAEMON_FLAGS:
        if flag.setting not in given:
            continue
        value = given[flag.setting]
        name = flag.names[-1]
        if flag.kind == "bool":
            arguments.append(f"{name}={'true' if value else 'false'}")
        elif isinstance(value, dict):
            for key, one in value.items():
                text = one["path"] if isinstance(one, dict) else one
                arguments.append(f"{name}={key}={text}")
        elif isinstance(value, list):
            arguments.extend(f"{name}={one}" for one in value)
        else:
            arguments.append(f"{name}={value}")
    return arguments
