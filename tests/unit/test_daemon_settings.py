"""The daemon's settings: flags, daemon.json, and what contradicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drivetrain.errors import InvalidArgument, NotFound, NotSupported
from drivetrain_engine.daemon.directives import DIRECTIVES, FIXED, UNSUPPORTED
from drivetrain_engine.daemon.settings import Settings, parse


@pytest.fixture
def configured(tmp_path: Path):
    def parse_with(document: object, **flags: object) -> Settings:
        path = tmp_path / "daemon.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return parse({"config-file": str(path), **flags})

    return parse_with


def test_without_anything_the_defaults_hold(configured) -> None:
    settings = configured("")
    assert settings.data_root == "/var/lib/engine"
    assert settings.hosts == ("unix:///run/engine/engine.sock",)
    assert settings.log_driver == "json-file"
    assert settings.live_restore is True
    assert settings.given == {"config-file"}


def test_the_socket_follows_the_exec_root(configured) -> None:
    assert configured("{}", exec_root="/x").hosts == ("unix:///x/engine.sock",)


def test_keys_of_daemon_json_are_dockerds(configured) -> None:
    settings = configured(
        {
            "storage-driver": "overlay2",
            "storage-opts": ["overlay2.size=10G", "dm.mkfsarg=-L x", "dm.mkfsarg=-K"],
            "log-opts": {"max-size": "10m", "max-file": "3"},
            "labels": ["zone=a"],
            "default-address-pools": [{"base": "10.10.0.0/16", "size": 24}],
            "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 2048, "Soft": 1024}},
            "runtimes": {"crun-here": {"path": "/opt/crun", "runtimeArgs": ["--debug"]}},
            "default-shm-size": "128M",
            "live-restore": False,
            "mtu": 1400,
            "dns": ["10.0.0.2"],
        }
    )
    assert settings.storage_options() == {"overlay2.size": "10G", "dm.mkfsarg": "-L x\n-K"}
    assert settings.log_opts == {"max-size": "10m", "max-file": "3"}
    assert settings.default_address_pools[0].size == 24
    assert settings.default_ulimits["nofile"].soft == 1024
    assert settings.runtimes["crun-here"]["path"] == "/opt/crun"
    assert settings.default_shm_size == 128 << 20
    assert (settings.mtu, settings.live_restore) == (1400, False)


def test_flags_say_the_same_in_their_own_syntax(configured) -> None:
    settings = configured(
        "{}",
        storage_driver="vfs",
        host=("unix:///tmp/a.sock", "unix:///tmp/b.sock"),
        log_opt=["max-size=1m", "tag={{.Name}}=x"],
        label=("a=b",),
        default_ulimit=["nofile=1024:2048", "core=0"],
        add_runtime=["mine=/opt/mine"],
        default_address_pool=["base=10.0.0.0/8,size=24"],
        default_shm_size="1G",
        debug=True,
        idle_timeout="1m",
    )
    assert settings.hosts == ("unix:///tmp/a.sock", "unix:///tmp/b.sock")
    assert settings.log_opts == {"max-size": "1m", "tag": "{{.Name}}=x"}
    assert settings.default_ulimits["core"].hard == 0
    assert settings.default_ulimits["nofile"].hard == 2048
    assert settings.runtimes == {"mine": {"path": "/opt/mine"}}
    assert settings.default_address_pools[0].base == "10.0.0.0/8"
    assert settings.default_shm_size == 1 << 30
    assert settings.idle_timeout == 60.0


def test_flags_that_were_not_given_leave_the_file_alone(configured) -> None:
    settings = configured({"labels": ["a=b"], "debug": True}, label=(), debug=None)
    assert settings.labels == ("a=b",)
    assert settings.debug is True


def test_a_key_in_both_places_is_named_with_both_values(configured) -> None:
    with pytest.raises(InvalidArgument) as caught:
        configured({"log-level": "info", "labels": ["a=b"]}, log_level="debug", label=["c=d"])
    assert "log-level: (from flag: debug, from file: info)" in str(caught.value)
    assert "labels: (from flag: ['c=d'], from file: ['a=b'])" in str(caught.value)


def test_an_unknown_key_is_named_with_the_closest(configured) -> None:
    with pytest.raises(InvalidArgument, match=r"storage-drivr \(did you mean storage-driver\?\)"):
        configured({"storage-drivr": "vfs"})


def test_an_unknown_flag_is_named_with_the_closest(configured) -> None:
    with pytest.raises(InvalidArgument, match=r"--storage-optt \(did you mean storage-opt\?\)"):
        configured("{}", storage_optt="x")


def test_the_name_of_a_flag_is_not_a_key_of_the_file(configured) -> None:
    with pytest.raises(InvalidArgument, match=r"label \(did you mean labels\?\)"):
        configured({"label": ["a=b"]})


def test_a_named_file_has_to_exist(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"missing\.json"):
        parse({"config-file": str(tmp_path / "missing.json")})


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "{'a': 1}"])
def test_a_malformed_file_is_named(configured, text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"daemon\.json"):
        configured(text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("debug", "perhaps"),
        ("debug", 1),
        ("mtu", "wide"),
        ("mtu", True),
        ("labels", {"a": "b"}),
        ("labels", ["no-equals-sign"]),
        ("log-level", "loud"),
        ("log-opts", {"max-file": 3}),
        ("default-ulimits", {"nofile": 3}),
        ("default-ulimits", {"nofile": {"Soft": 1}}),
        ("runtimes", {"x": {"runtimeType": "y"}}),
        ("runtimes", {"x": {"path": "/y", "options": {}}}),
        ("default-address-pools", [{"base": "10.0.0.0/16", "size": 8}]),
        ("default-address-pools", [{"base": "ten"}]),
        ("dns", ["example.com"]),
        ("default-ipc-mode", "host"),
        ("data-root", "relative"),
        ("hosts", ["http://localhost"]),
        ("hosts", ["unix://relative.sock"]),
        ("storage-opts", ["size=1G"]),
    ],
)
def test_a_bad_value_is_refused_and_names_its_key(configured, key: str, value: object) -> None:
    with pytest.raises(InvalidArgument) as caught:
        configured({key: value})
    assert key.rstrip("s").replace("log-leve", "log leve") in str(caught.value)


def test_tcp_needs_tls_unless_its_absence_is_meant(configured) -> None:
    hosts = ["tcp://127.0.0.1:2375"]
    with pytest.raises(InvalidArgument, match="without TLS"):
        configured({"hosts": hosts})
    assert configured({"hosts": hosts}, tls=False).uses_tls is False
    assert configured({"hosts": hosts, "tlsverify": True}).uses_tls is True


@pytest.mark.parametrize("key", sorted(UNSUPPORTED))
def test_what_dockerd_knows_and_this_engine_cannot_do_says_why(configured, key: str) -> None:
    with pytest.raises(NotSupported, match=key):
        configured({key: "x"})


@pytest.mark.parametrize("key", sorted(FIXED))
def test_what_the_engine_does_anyway_is_accepted(configured, key: str) -> None:
    accepted, reason = FIXED[key]
    for value in accepted:
        assert key not in configured({key: value}).given
    if reason:
        with pytest.raises(NotSupported, match=key):
            configured({key: "something else"})


def test_every_directive_has_an_attribute_and_a_line_of_help() -> None:
    settings = Settings({})
    for directive in DIRECTIVES:
        assert directive.help
        assert settings.as_dict()[directive.key] is not None
        assert directive.key.replace("-", "_") in Settings.__annotations__
