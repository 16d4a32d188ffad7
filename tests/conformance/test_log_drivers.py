"""All log drivers against the kit, those that send with real receivers."""

from typing import ClassVar

from drivetrain.testing.log import Cuts, LogConformance
from drivetrain.testing.logreceivers import (
    Collector,
    Fluentd,
    GelfTcp,
    Journal,
    Rsyslog,
    RsyslogTls,
)


class TestJsonFile(LogConformance):
    driver = "json-file"


class TestLocal(LogConformance):
    driver = "local"
    exact_bytes = True


class TestNone(LogConformance):
    driver = "none"


class TestSyslog(LogConformance):
    driver = "syslog"
    receiver_type = Rsyslog


class TestSyslogOctetCounted(Cuts):
    driver = "syslog"
    receiver_type = Rsyslog
    options: ClassVar = {"syslog-framing": "octet-counting"}


class TestSyslogTls(Cuts):
    driver = "syslog"
    receiver_type = RsyslogTls


class TestFluentd(LogConformance):
    driver = "fluentd"
    receiver_type = Fluentd
    acknowledged = True


class TestFluentdUnacknowledged(Cuts):
    driver = "fluentd"
    receiver_type = Fluentd
    options: ClassVar = {"fluentd-request-ack": "false"}


class TestGelf(LogConformance):
    driver = "gelf"
    receiver_type = GelfTcp
    options: ClassVar = {"gelf-tcp-max-reconnect": "0"}


class TestSplunk(LogConformance):
    driver = "splunk"
    receiver_type = Collector
    acknowledged = True


class TestJournald(LogConformance):
    driver = "journald"
    receiver_type = Journal
