"""The conformance kit of log drivers.

For a driver that writes on this host, three lines make a suite::

    from drivetrain.testing.log import LogConformance

    class TestMine(LogConformance):
        driver = "mine"

One that sends needs a receiver as well, see :mod:`drivetrain.testing.logreceivers`::

    class TestSyslog(LogConformance):
        driver = "syslog"
        receiver_type = Rsyslog

Every check writes what the engine's splitter would, and looks at what came out: at the receiver
where there is one, by ``log_read`` otherwise.
"""

from drivetrain.testing.log.cuts import Cuts
from drivetrain.testing.log.kit import LogKit
from drivetrain.testing.log.output import Output
from drivetrain.testing.log.reading import Reading
from drivetrain.testing.log.trouble import Trouble


class LogConformance(Output, Reading, Trouble, Cuts):
    """What every log driver has to do; see ``drivetrain.log``."""


__all__ = ["Cuts", "LogConformance", "LogKit"]
