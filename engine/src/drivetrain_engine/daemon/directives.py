"""Every setting of the daemon: its key in daemon.json, its flag, its kind and its default.

Names are dockerd's, so that an existing daemon.json and existing habits go on working. What dockerd
knows and this engine cannot honour is listed too, with the reason, since a setting that is
silently ignored is worse than an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: ``flag`` true or false; ``number`` a whole number; ``size`` bytes; ``list`` strings, the flag
#: may be repeated; ``map`` key=value strings; the others have their own syntax.
Kind = Literal[
    "text", "flag", "number", "duration", "size", "list", "map", "ulimits", "runtimes", "pools"
]


@dataclass(frozen=True, slots=True)
class Directive:
    """One setting.

    Attributes:
        key: in daemon.json.
        flag: on the command line, without dashes; empty: the same as the key.
        in_file: whether daemon.json may have it.
        reload: whether SIGHUP takes a new value over.
    """

    key: str
    kind: Kind
    default: object
    help: str
    flag: str = ""
    in_file: bool = True
    reload: bool = False

    @property
    def flag_name(self) -> str:
        """The flag without dashes."""
        return self.flag or self.key


DIRECTIVES: tuple[Directive, ...] = (
    Directive(
        "config-file", "text", "/etc/engine/daemon.json", "daemon configuration file", in_file=False
    ),
    Directive("data-root", "text", "/var/lib/engine", "root of the persistent state"),
    Directive("exec-root", "text", "/run/engine", "root of what a reboot may lose"),
    Directive("pidfile", "text", "", "file for the daemon's process id"),
    Directive("hosts", "list", (), "sockets to listen on: unix://, tcp:// or fd://", "host"),
    Directive("group", "text", "engine", "group of the unix socket"),
    Directive("debug", "flag", False, "tell more, and show tracebacks", reload=True),
    Directive("log-level", "text", "info", "debug, info, warn, error or fatal", reload=True),
    Directive("labels", "list", (), "key=value labels of the daemon", "label", reload=True),
    Directive("live-restore", "flag", True, "containers live on without the daemon", reload=True),
    Directive(
        "shutdown-timeout", "number", 15, "seconds for containers to stop at the end", reload=True
    ),
    Directive("oom-score-adjust", "number", 0, "oom_score_adj of the daemon itself"),
    Directive("idle-timeout", "duration", 0.0, "leave when idle for so long; 0: never"),
    Directive("tls", "flag", False, "use TLS on TCP sockets"),
    Directive("tlsverify", "flag", False, "use TLS and ask clients for a certificate"),
    Directive("tlscacert", "text", "/etc/engine/ca.pem", "certificates that clients' must have"),
    Directive("tlscert", "text", "/etc/engine/cert.pem", "the daemon's certificate"),
    Directive("tlskey", "text", "/etc/engine/key.pem", "its key"),
    Directive("storage-driver", "text", "", "storage driver of new containers"),
    Directive("storage-opts", "list", (), "options of the storage driver", "storage-opt"),
    Directive(
        "storage-driver-priority",
        "list",
        ("overlay2", "btrfs", "fuse-overlayfs", "vfs"),
        "storage drivers to try when none is named",
    ),
    Directive("log-driver", "text", "json-file", "log driver of new containers", reload=True),
    Directive("log-opts", "map", {}, "options of that log driver", "log-opt", reload=True),
    Directive(
        "log-cache-driver",
        "text",
        "local",
        "log driver that keeps the copy for `logs` where a container's own cannot read",
        reload=True,
    ),
    Directive("default-runtime", "text", "", "OCI runtime of new containers", reload=True),
    Directive("runtimes", "runtimes", {}, "further OCI runtimes", "add-runtime", reload=True),
    Directive("default-ulimits", "ulimits", {}, "ulimits of containers", "default-ulimit"),
    Directive("default-shm-size", "size", 64 << 20, "size of /dev/shm", reload=True),
    Directive("default-ipc-mode", "text", "private", "ipc mode of containers"),
    Directive("default-cgroupns-mode", "text", "", "cgroup namespace of containers"),
    Directive("cgroup-parent", "text", "", "parent cgroup of containers"),
    Directive("seccomp-profile", "text", "", "path of the default seccomp profile"),
    Directive("no-new-privileges", "flag", False, "set no-new-privileges by default"),
    Directive("init", "flag", False, "run an init in containers"),
    Directive("init-path", "text", "", "path of that init"),
    Directive("bip", "text", "", "address and prefix of the default bridge"),
    Directive("bip6", "text", "", "IPv6 address and prefix of the default bridge"),
    Directive("fixed-cidr", "text", "", "range of the default bridge's container addresses"),
    Directive("fixed-cidr-v6", "text", "", "the same for IPv6"),
    Directive("default-gateway", "text", "", "gateway of the default bridge"),
    Directive("default-gateway-v6", "text", "", "the same for IPv6"),
    Directive("ip", "text", "", "address that the default bridge publishes ports on"),
    Directive("mtu", "number", 0, "MTU of networks; 0: the driver chooses"),
    Directive("icc", "flag", True, "containers of the default bridge reach each other"),
    Directive("ip-masq", "flag", True, "masquerade the default bridge's addresses"),
    Directive("ipv6", "flag", False, "IPv6 on the default bridge"),
    Directive("dns", "list", (), "DNS servers of containers", reload=True),
    Directive("dns-search", "list", (), "DNS search domains", reload=True),
    Directive("dns-opts", "list", (), "DNS options", "dns-opt", reload=True),
    Directive(
        "default-address-pools",
        "pools",
        (),
        "address pools of networks: base=…,size=…",
        "default-address-pool",
    ),
    Directive(
        "registry-mirrors", "list", (), "URLs to pull Docker Hub's images from", "registry-mirror",
        reload=True,
    ),
    Directive(
        "insecure-registries", "list", (),
        "hosts or networks of registries without TLS, or without a signed certificate",
        "insecure-registry", reload=True,
    ),
    Directive("max-concurrent-downloads", "number", 3, "layers at once in a pull", reload=True),
    Directive("max-concurrent-uploads", "number", 5, "layers at once in a push", reload=True),
    Directive("max-download-attempts", "number", 5, "attempts for each layer", reload=True),
    Directive("cluster-store", "text", "", "where the hosts of a cluster share their networks"),
    Directive("cluster-store-opts", "map", {}, "options for it (key=value)", "cluster-store-opt"),
    Directive("cluster-advertise", "text", "", "this host's address or interface in the cluster"),
    Directive("data-path-addr", "text", "", "address or interface for traffic between containers"),
    Directive("data-path-port", "number", 4789, "UDP port of that traffic"),
)

#: Accepted with these values only: what the engine does anyway.
FIXED: dict[str, tuple[tuple[object, ...], str]] = {
    "iptables": ((True,), "the bridge driver needs its firewall rules (they are nftables')"),
    "ip6tables": ((True,), "the bridge driver needs its firewall rules (they are nftables')"),
    "ip-forward": ((True,), "the bridge driver needs forwarding"),
    "userland-proxy": ((False,), "ports are published by firewall rules, without a proxy"),
    "selinux-enabled": ((False,), "SELinux labels are not supported"),
    "experimental": ((False,), "there are no experimental features"),
    "raw-logs": ((True, False), ""),
    "exec-opts": (
        ([], ["native.cgroupdriver=cgroupfs"]),
        "only native.cgroupdriver=cgroupfs is supported",
    ),
    "features": (({}, {"buildkit": False}, {"containerd-snapshotter": False}), "there are none"),
    "firewall-backend": (("nftables", ""), "the bridge driver uses nftables"),
}

_PROXY = "set HTTP_PROXY, HTTPS_PROXY and NO_PROXY in the daemon's environment"
_FOREIGN = "what a manifest says to fetch elsewhere is not fetched, so that it is never pushed"
_CLUSTER = "clusters are not supported"
_CONTAINERD = "this engine runs without containerd"

#: Known to dockerd, impossible here, and why.
UNSUPPORTED: dict[str, str] = {
    "bridge": "the default network has a bridge of its own: set its address by bip",
    "allow-nondistributable-artifacts": _FOREIGN,
    "http-proxy": _PROXY,
    "https-proxy": _PROXY,
    "no-proxy": _PROXY,
    "proxies": _PROXY,
    "userns-remap": "remapped user namespaces are not supported",
    "authorization-plugins": "write an extension with container_creating instead",
    "api-cors-header": "browsers are not served",
    "containerd": _CONTAINERD,
    "containerd-namespace": _CONTAINERD,
    "containerd-plugins-namespace": _CONTAINERD,
    "cri-containerd": _CONTAINERD,
    "swarm-default-advertise-addr": _CLUSTER,
    "node-generic-resources": _CLUSTER,
    "network-control-plane-mtu": _CLUSTER,
    "default-network-opts": "give the options at network create",
    "host-gateway-ip": "give the address to --add-host",
    "host-gateway-ips": "give the addresses to --add-host",
    "metrics-addr": "metrics are served by the API, at GET /metrics",
    "builder": "builds are not supported",
    "cdi-spec-dirs": "CDI devices are not supported",
    "cpu-rt-period": "real-time scheduling is not supported",
    "cpu-rt-runtime": "real-time scheduling is not supported",
    "allow-direct-routing": "it is not supported",
    "log-format": "the daemon's log has one format",
    "min-api-version": "the oldest API version is 1.24",
    "network-opts": "give the options at network create",
    "graph": 'it is called "data-root"',
}
