"""The ``engine`` command: a thin client of the HTTP API, and the daemon's command line.

It imports no service of the engine, no asyncio and no HTTP library, so that ``engine ps`` starts
quickly: ``client`` speaks HTTP over sockets by itself, and every subcommand's module is imported
only when it is called for. What click imports beside is deferred.
"""

from drivetrain_engine.cli import deferred as deferred
