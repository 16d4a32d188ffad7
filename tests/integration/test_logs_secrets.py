"""Secrets among the options of log drivers: they work, and nobody sees them."""

from __future__ import annotations

import json
import stat
import tempfile
from pathlib import Path

from drivetrain.testing.hosts import Host
from drivetrain.testing.logreceivers import Collector

#: What the collector accepts.
TOKEN = "token-that-nobody-sees"


class Guarded(Collector):
    """An event collector with a token of its own."""

    token = TOKEN


def test_a_token_is_masked_wherever_it_could_be_seen_and_works(fresh_host: Host) -> None:
    host = fresh_host
    with tempfile.TemporaryDirectory(prefix="rx-", dir="/tmp") as name:
        collector = Guarded(Path(name), host.inside)
        settings = {"log-driver": "splunk", "log-opts": dict(collector.options)}
        host.config_file.write_text(json.dumps(settings))
        trace = {"DRIVETRAIN_TRACE": "1"}
        host.start("--debug", environment=trace)
        host.load_busybox()
        try:
            given = [f"--log-opt={key}={value}" for key, value in collector.options.items()]
            script = ["busybox", "sh", "-c", "echo said"]
            host.engine("run", "--name", "default", *script)
            host.engine("run", "--name", "first", "--log-driver=splunk", *given, *script)
            several = ["--log-driver=local", "--log-driver=splunk", *given]
            host.engine("run", "--name", "second", *several, *script)
            wrong = ["--log-driver=splunk", *given, "--log-opt=splunk-gzip-level=12", "busybox"]
            seen = [host.engine("create", *wrong, check=False).stderr]
            assert "splunk-gzip-level" in seen[0]
            names = ("default", "first", "second")
            for client in (host.docker, host.engine):
                seen += [client("inspect", each).stdout for each in names]
                seen.append(client("events", "--since", "1h", "--until", "0s").stdout)
                seen += [client("info", "--format", "{{json .}}").stdout]
            assert all('"splunk-token": "***"' in seen[1 + place] for place in range(3))
            assert '"splunk-token":"***"' in seen[5].replace(" ", "") + seen[10].replace(" ", "")

            assert host.stop() == 0
            host.start("--debug", environment=trace)
            collector.start()
            assert [record.text for record in collector.wait(3)] == ["said"] * 3
            host.docker("start", "-a", "first")
            assert len(collector.wait(4)) == 4
        finally:
            collector.close()
        assert host.stop() == 0
        seen.append(host.log.read_text(errors="replace"))
        assert "log_validate" in seen[-1]
        assert [text for text in seen if TOKEN in text] == []
    database = host.data_root / "state.db"
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
