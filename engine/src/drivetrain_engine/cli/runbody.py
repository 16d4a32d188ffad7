"""The body of ``POST /containers/create`` from the flags of ``run`` and ``create``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from drivetrain_engine.cli import mounts, values
from drivetrain_engine.cli.errors import UsageError
from drivetrain_engine.cli.ports import port_settings

Flags = Mapping[str, Any]
Json = dict[str, Any]


def create_body(
    flags: Flags, image: str, arguments: Sequence[str], *, detach: bool = False, rm: bool = False
) -> Json:
    """Return the request body as docker's command line would send it, empty values left out.

    Args:
        flags: by parameter name, as :func:`runflags.run_flags` declares them.
        image: its name.
        arguments: the command behind it.
        detach: nothing is attached.
        rm: remove the container when it exits.

    Raises:
        UsageError: a value is not of its form, or two contradict each other.
    """
    attached = _attached(flags, detach)
    exposed, bindings = port_settings(flags["publish"], flags["expose"])
    binds, volumes = mounts.volume_settings(flags["volume"])
    labels = [
        line for path in flags["label_file"] for line in values.read_lines(path, "--label-file")
    ]
    endpoints = _endpoints(flags)
    body: Json = {
        "Image": image,
        "Cmd": list(arguments) or None,
        "Hostname": flags["hostname"],
        "Domainname": flags["domainname"],
        "User": flags["user"],
        "Tty": flags["tty"],
        "OpenStdin": flags["interactive"],
        "StdinOnce": flags["interactive"] and "stdin" in attached,
        "AttachStdin": "stdin" in attached,
        "AttachStdout": "stdout" in attached,
        "AttachStderr": "stderr" in attached,
        "Env": values.environment(flags["env_file"], flags["env"]),
        "ExposedPorts": exposed,
        "Volumes": volumes,
        "WorkingDir": flags["workdir"],
        "Labels": values.pairs([*labels, *flags["label"]], "--label"),
        "StopSignal": flags["stop_signal"],
        "Healthcheck": _healthcheck(flags),
    }
    body = _compact(body)
    if flags["stop_timeout"] is not None:
        body["StopTimeout"] = flags["stop_timeout"]
    if flags["entrypoint"] is not None:
        body["Entrypoint"] = [flags["entrypoint"]]
    body["HostConfig"] = _host_config(flags, bindings, binds, rm)
    body["HostConfig"]["NetworkMode"] = endpoints[0][0] if endpoints else "default"
    body["NetworkingConfig"] = {
        "EndpointsConfig": {name: settings for name, settings in endpoints if _joins(name)}
    }
    return body


def _joins(mode: str) -> bool:
    return not mode.startswith("container:") and mode not in ("none", "host", "default")


def _compact(mapping: Json) -> Json:
    """Leave out what says nothing."""
    return {key: value for key, value in mapping.items() if value not in (None, "", False, [], {})}


def _attached(flags: Flags, detach: bool) -> set[str]:
    given = {stream.lower() for stream in flags["attach"]}
    if given - {"stdin", "stdout", "stderr"}:
        raise UsageError("invalid argument for --attach: stdin, stdout or stderr")
    if detach and given:
        raise UsageError("conflicting options: --attach and --detach")
    if detach:
        return set()
    if given:
        return given
    return {"stdout", "stderr"} | ({"stdin"} if flags["interactive"] else set())


def _healthcheck(flags: Flags) -> Json:
    timing = {
        "Interval": flags["health_interval"],
        "Timeout": flags["health_timeout"],
        "StartPeriod": flags["health_start_period"],
        "StartInterval": flags["health_start_interval"],
    }
    check: Json = {
        key: values.parse_duration(text, "--health-*") for key, text in timing.items() if text
    }
    if flags["health_retries"]:
        check["Retries"] = flags["health_retries"]
    if flags["no_healthcheck"]:
        if check or flags["health_cmd"]:
            raise UsageError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if flags["health_cmd"]:
        check["Test"] = ["CMD-SHELL", flags["health_cmd"]]
    return check


def _host_config(flags: Flags, bindings: Json, binds: list[str], rm: bool) -> Json:
    if rm and flags["restart"] not in ("", "no"):
        raise UsageError("conflicting options: cannot specify both --restart and --rm")
    config: Json = {
        "AutoRemove": rm,
        "Binds": binds,
        "Mounts": [mounts.mount_settings(text) for text in flags["mount"]],
        "Tmpfs": mounts.tmpfs_settings(flags["tmpfs"]),
        "VolumesFrom": list(flags["volumes_from"]),
        "VolumeDriver": flags["volume_driver"],
        "ContainerIDFile": flags["cidfile"],
        "LogConfig": _log_config(flags),
        "ExtraLogConfigs": [{"Type": name} for name in flags["log_driver"][1:]],
        "PortBindings": bindings,
        "PublishAllPorts": flags["publish_all"],
        "Links": list(flags["link"]),
        "Dns": list(flags["dns"]),
        "DnsSearch": list(flags["dns_search"]),
        "DnsOptions": list(flags["dns_option"]),
        "ExtraHosts": [_extra_host(text) for text in flags["add_host"]],
        "CapAdd": [_capability(name) for name in flags["cap_add"]],
        "CapDrop": [_capability(name) for name in flags["cap_drop"]],
        "GroupAdd": list(flags["group_add"]),
        "Privileged": flags["privileged"],
        "ReadonlyRootfs": flags["read_only"],
        "SecurityOpt": _security(flags["security_opt"]),
        "StorageOpt": values.pairs(flags["storage_opt"], "--storage-opt", required=True),
        "StorageDriver": flags["storage_driver"],
        "Sysctls": values.pairs(flags["sysctl"], "--sysctl", required=True),
        "Annotations": values.pairs(flags["annotation"], "--annotation"),
        "Runtime": flags["runtime"],
        "IpcMode": flags["ipc"],
        "PidMode": flags["pid"],
        "UTSMode": flags["uts"],
        "UsernsMode": flags["userns"],
        "CgroupnsMode": flags["cgroupns"],
        "OomScoreAdj": flags["oom_score_adj"],
        "ShmSize": flags["shm_size"] and values.parse_size(flags["shm_size"], "--shm-size"),
        "RestartPolicy": values.parse_restart(flags["restart"]),
        "Isolation": flags["isolation"],
    }
    config.update(resources(flags))
    if flags["init"]:
        config["Init"] = True
    return _compact(config)


def resources(flags: Flags) -> Json:
    """Return the limits, which ``update`` shares."""
    sizes = {
        "Memory": "memory",
        "MemorySwap": "memory_swap",
        "MemoryReservation": "memory_reservation",
        "KernelMemory": "kernel_memory",
    }
    limits: Json = {
        key: values.parse_size(flags[name], "--" + name.replace("_", "-"))
        for key, name in sizes.items()
        if flags.get(name)
    }
    plain = {
        "CpuShares": "cpu_shares",
        "CpuPeriod": "cpu_period",
        "CpuQuota": "cpu_quota",
        "CpuRealtimePeriod": "cpu_rt_period",
        "CpuRealtimeRuntime": "cpu_rt_runtime",
        "CpusetCpus": "cpuset_cpus",
        "CpusetMems": "cpuset_mems",
        "PidsLimit": "pids_limit",
        "MemorySwappiness": "memory_swappiness",
        "BlkioWeight": "blkio_weight",
        "OomKillDisable": "oom_kill_disable",
        "CgroupParent": "cgroup_parent",
    }
    limits.update({key: flags.get(name) for key, name in plain.items()})
    limits["NanoCpus"] = values.parse_cpus(flags["cpus"]) if flags.get("cpus") else 0
    limits["Ulimits"] = [parse_ulimit(text) for text in flags.get("ulimit", ())]
    limits["Devices"] = [mounts.device_settings(text) for text in flags.get("device", ())]
    limits["DeviceCgroupRules"] = list(flags.get("device_cgroup_rule", ()))
    limits["DeviceRequests"] = _gpus(flags.get("gpus"))
    for key, name in (
        ("BlkioDeviceReadBps", "device_read_bps"),
        ("BlkioDeviceWriteBps", "device_write_bps"),
        ("BlkioDeviceReadIOps", "device_read_iops"),
        ("BlkioDeviceWriteIOps", "device_write_iops"),
        ("BlkioWeightDevice", "blkio_weight_device"),
    ):
        limits[key] = [_device_rate(text, name, key) for text in flags.get(name, ())]
    return _compact(limits)


def _device_rate(text: str, name: str, key: str) -> Json:
    path, separator, value = text.partition(":")
    flag = "--" + name.replace("_", "-")
    if not separator or not path.startswith("/"):
        raise UsageError(f"invalid argument {text!r} for {flag}: /device:value is needed")
    rate = values.parse_size(value, flag)
    return {"Path": path, "Weight" if key == "BlkioWeightDevice" else "Rate": rate}


def _gpus(text: str | None) -> list[Json]:
    if not text:
        return []
    count = -1 if text == "all" else int(text) if text.isdigit() else 0
    request: Json = {"Count": count, "Capabilities": [["gpu"]], "Options": {}}
    if not count:
        request["DeviceIDs"] = text.strip('"').removeprefix("device=").split(",")
    return [request]


def parse_ulimit(text: str) -> Json:
    """Return one of Ulimits for ``name=soft[:hard]``; hard is soft when left out."""
    name, _, limits = text.partition("=")
    soft, separator, hard = limits.partition(":")
    try:
        low = int(soft)
        high = int(hard) if separator else low
    except ValueError:
        raise UsageError(f"invalid ulimit {text!r}: name=soft[:hard] is needed") from None
    if high != -1 and (low > high or low == -1):
        raise UsageError(f"invalid ulimit {text!r}: the soft limit is above the hard limit")
    return {"Name": name, "Soft": low, "Hard": high}


def _capability(name: str) -> str:
    name = name.upper()
    return name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"


def _security(options: Sequence[str]) -> list[str]:
    """Return the options; a seccomp profile is a file of ours, and is sent by content."""
    found: list[str] = []
    for option in options:
        key, separator, value = option.replace(":", "=", 1).partition("=")
        if key == "seccomp" and separator and value not in ("unconfined", "builtin"):
            try:
                with open(value, encoding="utf-8") as file:
                    option = "seccomp=" + json.dumps(json.load(file), separators=(",", ":"))
            except (OSError, ValueError) as error:
                raise UsageError(f"opening seccomp profile {value} failed: {error}") from error
        found.append(option)
    return found


def _extra_host(text: str) -> str:
    name, separator, address = text.partition("=")
    if not separator or ":" in name:
        name, separator, address = text.partition(":")
    if not name or not address:
        raise UsageError(f"bad format for add-host: {text!r} (name:address is needed)")
    return f"{name}:{address.removeprefix('[').removesuffix(']')}"


def _log_config(flags: Flags) -> Json:
    options = values.pairs(flags["log_opt"], "--log-opt", required=True)
    drivers = list(flags["log_driver"])
    if drivers == ["none"] and options:
        raise UsageError("invalid logging opts for driver none: it takes none")
    return {"Type": drivers[0] if drivers else "", "Config": options} if drivers or options else {}


def _endpoints(flags: Flags) -> list[tuple[str, Json]]:
    """Return name and settings of each ``--network``; the simple flags are for the first one."""
    endpoints = [_network(text) for text in flags["network"]]
    settings: Json = {}
    addresses = _compact(
        {
            "IPv4Address": flags["ip"],
            "IPv6Address": flags["ip6"],
            "LinkLocalIPs": list(flags["link_local_ip"]),
        }
    )
    if addresses:
        settings["IPAMConfig"] = addresses
    if flags["network_alias"]:
        settings["Aliases"] = list(flags["network_alias"])
    if flags["mac_address"]:
        settings["MacAddress"] = flags["mac_address"]
    if not endpoints:
        if "Aliases" in settings:
            raise UsageError(
                "network-scoped alias is supported only for containers in user "
                "defined networks: add --network"
            )
        return [("bridge", settings)] if settings else []
    if flags["link"] and _joins(endpoints[0][0]):
        settings["Links"] = list(flags["link"])
    for key, value in settings.items():
        if key in endpoints[0][1]:
            raise UsageError(f"--network {endpoints[0][0]} has its own {key}; give it once")
        endpoints[0][1][key] = value
    return endpoints


def _network(text: str) -> tuple[str, Json]:
    if "=" not in text:
        return text, {}
    name = ""
    settings: Json = {}
    addresses: Json = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        match key.lower():
            case "name":
                name = value
            case "alias":
                settings.setdefault("Aliases", []).append(value)
            case "ip":
                addresses["IPv4Address"] = value
            case "ip6":
                addresses["IPv6Address"] = value
            case "link-local-ip":
                addresses.setdefault("LinkLocalIPs", []).append(value)
            case "mac-address":
                settings["MacAddress"] = value
            case "gw-priority":
                settings["GwPriority"] = int(value)
            case "driver-opt":
                option, _, setting = value.partition("=")
                settings.setdefault("DriverOpts", {})[option] = setting
            case _:
                raise UsageError(f"invalid field {key!r} in --network {text!r}")
    if not name:
        raise UsageError(f"invalid --network {text!r}: name= is required")
    if addresses:
        settings["IPAMConfig"] = addresses
    return name, settings
