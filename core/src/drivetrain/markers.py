"""The two pluggy markers of the project; drivers need only :data:`hookimpl`."""

from pluggy import HookimplMarker, HookspecMarker

hookspec = HookspecMarker("drivetrain")
hookimpl = HookimplMarker("drivetrain")
