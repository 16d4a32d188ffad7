"""Volume driver for Drivetrain: directories and mounts of this host.

A volume is the directory ``NAME/_data`` in the driver's own root. With ``device`` given, that is
mounted there while somebody uses the volume: a tmpfs, a bind mount, NFS, CIFS or any file system
that the kernel knows.
"""

from drivetrain_volume_local.driver import Local

__all__ = ["Local"]
