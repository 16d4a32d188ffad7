"""Ports, mounts, sizes and times of the command line."""

from __future__ import annotations

import os
from typing import Any

import pytest

from drivetrain_engine.cli import mounts, values
from drivetrain_engine.cli.errors import UsageError
from drivetrain_engine.cli.ports import parse_port, port_settings, show_ports


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", {"80/tcp": [{"HostIp": "", "HostPort": ""}]}),
        ("8080:80", {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}),
        ("127.0.0.1::53/udp", {"53/udp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}),
        ("1.2.3.4:1:2/SCTP", {"2/sctp": [{"HostIp": "1.2.3.4", "HostPort": "1"}]}),
        ("[::1]:6:7", {"7/tcp": [{"HostIp": "::1", "HostPort": "6"}]}),
        ("3000-3005:70", {"70/tcp": [{"HostIp": "", "HostPort": "3000-3005"}]}),
        (
            "9000-9001:90-91",
            {
                "90/tcp": [{"HostIp": "", "HostPort": "9000"}],
                "91/tcp": [{"HostIp": "", "HostPort": "9001"}],
            },
        ),
        ("target=80,published=8080", {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}),
    ],
)
def test_ports_as_docker_reads_them(text: str, expected: dict[str, Any]) -> None:
    exposed, bindings = parse_port(text)
    assert bindings == expected
    assert exposed == list(expected)


@pytest.mark.parametrize(
    "text", ["0", "65536", "x", "80/icmp", "9-8", "1-2:3-5", "1:", "[::1:80:80", "tar=1"]
)
def test_wrong_ports_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="invalid port"):
        parse_port(text)


def test_one_port_published_twice_has_two_bindings() -> None:
    exposed, bindings = port_settings(["1:80", "2:80"], ["99", "100-101/udp"])
    assert [one["HostPort"] for one in bindings["80/tcp"]] == ["1", "2"]
    assert list(exposed) == ["80/tcp", "99/tcp", "100/udp", "101/udp"]


def test_the_ports_column_joins_ranges() -> None:
    ports = [
        {"IP": "0.0.0.0", "PrivatePort": 90, "PublicPort": 9000, "Type": "tcp"},
        {"IP": "0.0.0.0", "PrivatePort": 91, "PublicPort": 9001, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 443, "Type": "tcp"},
        {"PrivatePort": 53, "Type": "udp"},
    ]
    assert show_ports(ports) == ("53/udp, [::]:8080->80/tcp, 0.0.0.0:9000-9001->90-91/tcp, 443/tcp")


def test_volumes_are_binds_or_anonymous() -> None:
    binds, volumes = mounts.volume_settings(["/a:/b:ro", "v:/c", "/anon", "./here:/d"])
    assert binds == ["/a:/b:ro", "v:/c", f"{os.path.abspath('here')}:/d"]
    assert volumes == {"/anon": {}}
    with pytest.raises(UsageError):
        mounts.volume_settings(["relative"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "type=bind,src=/x,dst=/y,readonly,bind-propagation=rslave",
            {
                "Type": "bind",
                "Source": "/x",
                "Target": "/y",
                "ReadOnly": True,
                "BindOptions": {"Propagation": "rslave"},
            },
        ),
        (
            'src=v,target=/v,volume-driver=local,"volume-opt=o=size=1,uid=2",volume-nocopy',
            {
                "Type": "volume",
                "Source": "v",
                "Target": "/v",
                "VolumeOptions": {
                    "NoCopy": True,
                    "DriverConfig": {"Name": "local", "Options": {"o": "size=1,uid=2"}},
                },
            },
        ),
        (
            "type=tmpfs,destination=/t,tmpfs-size=64m,tmpfs-mode=1770",
            {
                "Type": "tmpfs",
                "Target": "/t",
                "TmpfsOptions": {"SizeBytes": 64 << 20, "Mode": 0o1770},
            },
        ),
        (
            "type=bind,source=/a,target=/b,ro=false",
            {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": False},
        ),
    ],
)
def test_mounts_as_docker_reads_them(text: str, expected: dict[str, Any]) -> None:
    assert mounts.mount_settings(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("type=bind,target=/b", "source= is required"),
        ("type=bind,source=/a", "target= is required"),
        ("type=cloud,target=/b", "invalid mount type"),
        ("type=tmpfs,target=/b,volume-nocopy", "unexpected key 'volume-nocopy'"),
        ("type=bind,source=/a,target=/b,surprise=1", "unexpected key 'surprise'"),
        ("target=/b,verbatim", "key=value"),
    ],
)
def test_wrong_mounts_are_named(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        mounts.mount_settings(text)


def test_devices() -> None:
    def device(text: str) -> tuple[object, object, object]:
        found = mounts.device_settings(text)
        return found["PathOnHost"], found["PathInContainer"], found["CgroupPermissions"]

    assert device("/dev/a") == ("/dev/a", "/dev/a", "rwm")
    assert device("/dev/a:r") == ("/dev/a", "/dev/a", "r")
    assert device("/dev/a:/dev/b") == ("/dev/a", "/dev/b", "rwm")
    assert device("/dev/a:/dev/b:rw") == ("/dev/a", "/dev/b", "rw")
    with pytest.raises(UsageError):
        device("/dev/a:/dev/b:xyz")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("64m", 64 << 20),
        ("1.5g", 3 << 29),
        ("10", 10),
        ("1KiB", 1024),
        ("-1", -1),
        ("2GB", 2 << 30),
    ],
)
def test_sizes_are_powers_of_1024(text: str, expected: int) -> None:
    assert values.parse_size(text, "-m") == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.2, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (61, "About a minute"),
        (600, "10 minutes"),
        (3700, "About an hour"),
        (7500, "2 hours"),
        (3 * 86400, "3 days"),
        (20 * 86400, "2 weeks"),
        (100 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_durations_in_docker_s_words(seconds: float, expected: str) -> None:
    assert values.human_duration(seconds) == expected


@pytest.mark.parametrize(
    ("size", "expected"), [(0, "0B"), (999, "999B"), (1000, "1kB"), (1_980_000, "1.98MB")]
)
def test_sizes_for_humans(size: int, expected: str) -> None:
    assert values.human_size(size, 3) == expected


def test_times() -> None:
    assert values.parse_time("1234.5") == "1234.5"
    assert values.parse_time("") == ""
    assert float(values.parse_time("2020-01-02T03:04:05Z")) == 1577934245
    with pytest.raises(UsageError, match="invalid time"):
        values.parse_time("yesterday")
    assert values.timestamp("2020-01-02T03:04:05.5Z") == 1577934245.5
    assert values.timestamp("2020-01-02T05:04:05+02:00") == 1577934245
    assert values.timestamp("0001-01-01T00:00:00Z") == 0.0


def test_filters_collect_values() -> None:
    assert values.filters(["status=a", "status=b", "label=x=y"]) == {
        "status": ["a", "b"],
        "label": ["x=y"],
    }
    with pytest.raises(UsageError, match="invalid filter"):
        values.filters(["status"])


def test_restart_policies() -> None:
    assert values.parse_restart("on-failure:3") == {"Name": "on-failure", "MaximumRetryCount": 3}
    with pytest.raises(UsageError):
        values.parse_restart("on-failure:x")
