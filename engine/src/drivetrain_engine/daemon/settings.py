"""The daemon's settings, from flags and daemon.json."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from drivetrain.errors import InvalidArgument, NotFound, NotSupported
from drivetrain.options import closest
from drivetrain_engine.daemon.directives import DIRECTIVES, FIXED, UNSUPPORTED, Directive
from drivetrain_engine.daemon.values import READERS, AddressPool, Ulimit

_LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
_BY_KEY = {directive.key: directive for directive in DIRECTIVES}
_BY_FLAG = {directive.flag_name: directive for directive in DIRECTIVES}
_LABEL = re.compile(r"^[^=\s][^=]*=.*$", re.DOTALL)


class Settings:
    """The effective settings; every directive is an attribute (``data_root``, ``log_opts``, …).

    Args:
        values: by key; what is missing has its default.
        given: keys that the user set, by flag or in the file.
        flags: the flags, to be parsed again at a reload.
    """

    # The attributes, for readers and type checkers; directives.py has their meaning.
    config_file: str
    data_root: str
    exec_root: str
    pidfile: str
    hosts: tuple[str, ...]
    group: str
    debug: bool
    log_level: str
    labels: tuple[str, ...]
    live_restore: bool
    shutdown_timeout: int
    oom_score_adjust: int
    idle_timeout: float
    tls: bool
    tlsverify: bool
    tlscacert: str
    tlscert: str
    tlskey: str
    storage_driver: str
    storage_opts: tuple[str, ...]
    storage_driver_priority: tuple[str, ...]
    log_driver: str
    log_opts: dict[str, str]
    log_cache_driver: str
    default_runtime: str
    runtimes: dict[str, dict[str, Any]]
    default_ulimits: dict[str, Ulimit]
    default_shm_size: int
    default_ipc_mode: str
    default_cgroupns_mode: str
    cgroup_parent: str
    seccomp_profile: str
    no_new_privileges: bool
    init: bool
    init_path: str
    bip: str
    bip6: str
    fixed_cidr: str
    fixed_cidr_v6: str
    default_gateway: str
    default_gateway_v6: str
    ip: str
    mtu: int
    icc: bool
    ip_masq: bool
    ipv6: bool
    registry_mirrors: tuple[str, ...]
    insecure_registries: tuple[str, ...]
    max_concurrent_downloads: int
    max_concurrent_uploads: int
    max_download_attempts: int
    dns: tuple[str, ...]
    dns_search: tuple[str, ...]
    dns_opts: tuple[str, ...]
    default_address_pools: tuple[AddressPool, ...]
    cluster_store: str
    cluster_store_opts: dict[str, str]
    cluster_advertise: str
    data_path_addr: str
    data_path_port: int

    def __init__(
        self,
        values: Mapping[str, object],
        *,
        given: frozenset[str] = frozenset(),
        flags: Mapping[str, object] | None = None,
    ) -> None:
        self.given = given
        self.flags = dict(flags or {})
        for directive in DIRECTIVES:
            value = values.get(directive.key, directive.default)
            setattr(self, directive.key.replace("-", "_"), value)
        if not self.hosts:
            self.hosts = (f"unix://{self.exec_root}/engine.sock",)

    def as_dict(self) -> dict[str, object]:
        """Return all settings by key, secrets included."""
        return {key: getattr(self, key.replace("-", "_")) for key in _BY_KEY}

    def storage_options(self) -> dict[str, str]:
        """Return ``storage-opts`` as a mapping; values of one key are joined by newlines."""
        found: dict[str, str] = {}
        for text in self.storage_opts:
            key, _, value = text.partition("=")
            found[key] = f"{found[key]}\n{value}" if key in found else value
        return found

    def cluster_options(self) -> dict[str, str]:
        """Return what drivers of global scope get as their options; empty without a cluster."""
        if not self.cluster_store:
            return {}
        found = {
            "cluster-store": self.cluster_store,
            "cluster-advertise": self.cluster_advertise,
            "data-path-addr": self.data_path_addr,
            "data-path-port": str(self.data_path_port),
        }
        return {**{key: value for key, value in found.items() if value}, **self.cluster_store_opts}

    def take_over(self, fresh: Settings) -> dict[str, object]:
        """Take the values of ``fresh`` over where a reload may; return what changed, by key."""
        changed: dict[str, object] = {}
        for directive in DIRECTIVES:
            name = directive.key.replace("-", "_")
            value = getattr(fresh, name)
            if directive.reload and value != getattr(self, name):
                setattr(self, name, value)
                changed[directive.key] = value
        return changed

    @property
    def uses_tls(self) -> bool:
        """TCP sockets speak TLS."""
        return self.tls or self.tlsverify


def parse(flags: Mapping[str, object]) -> Settings:
    """Return the settings that ``flags`` and the configuration file make together.

    Args:
        flags: what was given on the command line, by flag or key, with dashes or underscores;
            strings, booleans, numbers, or sequences of strings for what may be repeated. ``None``
            and empty sequences mean: not given.

    Raises:
        InvalidArgument: unknown keys, bad values, keys in both places.
        NotFound: the configuration file was named and does not exist.
        NotSupported: a setting of dockerd's that cannot be honoured.
    """
    from_flags = _flag_values(flags)
    path = Path(str(from_flags.get("config-file", _BY_KEY["config-file"].default)))
    from_file = _file_values(path, named="config-file" in from_flags)
    both = sorted(set(from_flags) & set(from_file))
    if both:
        details = ", ".join(
            f"{key}: (from flag: {_shown(from_flags[key])}, from file: {_shown(from_file[key])})"
            for key in both
        )
        raise InvalidArgument(
            "the following directives are specified both as a flag and in the configuration "
            f"file {path}: {details}"
        )
    values = {**from_file, **from_flags}
    settings = Settings(values, given=frozenset(values), flags=flags)
    _check(settings)
    return settings


def _shown(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _flag_values(flags: Mapping[str, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in flags.items():
        if value is None or (isinstance(value, (tuple, list)) and not value):
            continue
        flag = name.lstrip("-").replace("_", "-")
        directive = _BY_FLAG.get(flag) or _BY_KEY.get(flag)
        if directive is None:
            if _refuse_known(flag, value, "flag --"):
                continue
            raise InvalidArgument(f"unknown flag: --{flag}{closest(flag, list(_BY_FLAG))}")
        found[directive.key] = _read(directive, value, f"--{directive.flag_name}")
    return found


def _file_values(path: Path, *, named: bool) -> dict[str, object]:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        if named:
            raise NotFound(
                f"unable to configure the daemon with file {path}: no such file"
            ) from None
        return {}
    except OSError as error:
        raise InvalidArgument(
            f"unable to configure the daemon with file {path}: {error.strerror}"
        ) from None
    try:
        document = msgspec.json.decode(text.strip() or b"{}")
    except msgspec.DecodeError as error:
        raise InvalidArgument(
            f"unable to configure the daemon with file {path}: invalid JSON: {error}"
        ) from None
    if not isinstance(document, dict):
        raise InvalidArgument(
            f"unable to configure the daemon with file {path}: a JSON object is needed"
        )
    found: dict[str, object] = {}
    unknown = []
    for key, value in document.items():
        directive = _BY_KEY.get(key)
        if directive is not None and directive.in_file:
            found[key] = _read(directive, value, f"{key} in {path}")
        elif not _refuse_known(key, value, f"in {path}: "):
            unknown.append(key + closest(key, list(_BY_KEY)))
    if unknown:
        raise InvalidArgument(
            f"unable to configure the daemon with file {path}: the following directives don't "
            f"match any configuration option: {', '.join(unknown)}"
        )
    return found


def _refuse_known(key: str, value: object, where: str) -> bool:
    """Return whether ``key`` is a setting of dockerd's that changes nothing here.

    Raises:
        NotSupported: it would change something.
    """
    if key in FIXED:
        accepted, reason = FIXED[key]
        if value in accepted:
            return True
        raise NotSupported(f"{where}{key}={value} cannot be honoured: {reason}")
    if key in UNSUPPORTED:
        raise NotSupported(f"{where}{key} is not supported: {UNSUPPORTED[key]}")
    return False


def _read(directive: Directive, value: object, where: str) -> object:
    try:
        return READERS[directive.kind](value)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        text = str(error) or "the value is malformed"
        raise InvalidArgument(f"invalid value for {where}: {_shown(value)!r}: {text}") from None


def _check(settings: Settings) -> None:
    """Check what a single value cannot tell."""
    if settings.log_level not in _LOG_LEVELS:
        raise InvalidArgument(
            f"invalid log level {settings.log_level}: one of {', '.join(_LOG_LEVELS)} is needed"
        )
    for label in settings.labels:
        if not _LABEL.match(label):
            raise InvalidArgument(f"invalid label {label!r}: key=value is needed")
    for text in settings.storage_opts:
        if "=" not in text:
            raise InvalidArgument(f"invalid storage option {text!r}: key=value is needed")
    for key in settings.storage_options():
        if "." not in key and not settings.storage_driver:
            raise InvalidArgument(f"storage-opt {key} needs a storage-driver: give that too")
    if settings.cluster_store_opts and not settings.cluster_store:
        raise InvalidArgument("cluster-store-opts need a cluster-store: give --cluster-store too")
    for server in settings.dns:
        try:
            ipaddress.ip_address(server)
        except ValueError:
            raise InvalidArgument(f"dns: {server} is not an ip address") from None
    if settings.default_ipc_mode not in ("private", "shareable"):
        raise InvalidArgument("default-ipc-mode: private or shareable is needed")
    if settings.default_cgroupns_mode not in ("", "private", "host"):
        raise InvalidArgument("default-cgroupns-mode: private or host is needed")
    for key in ("data_root", "exec_root"):
        path = getattr(settings, key)
        if not path.startswith("/"):
            raise InvalidArgument(f"{key.replace('_', '-')}: {path} is not an absolute path")
    for host in settings.hosts:
        _check_host(settings, host)


def _check_host(settings: Settings, host: str) -> None:
    scheme, separator, rest = host.partition("://")
    if not separator or scheme not in ("unix", "tcp", "fd"):
        raise InvalidArgument(
            f"invalid host {host}: unix:///path, tcp://address:port or fd:// is needed"
        )
    if scheme == "unix" and rest and not rest.startswith("/"):
        raise InvalidArgument(f"invalid host {host}: the path has to be absolute")
    if scheme == "tcp" and not settings.uses_tls and "tls" not in settings.given:
        raise InvalidArgument(
            f"{host} without TLS gives root to everyone who can reach it: use --tlsverify with "
            "--tlscacert, --tlscert and --tlskey, or say --tls=false if you mean it"
        )
