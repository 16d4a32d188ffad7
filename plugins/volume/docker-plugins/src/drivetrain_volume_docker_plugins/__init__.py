"""Docker's own volume plugins as drivers: programs of any language behind a socket.

They are found by name where Docker looks for them, and spoken to in Docker's plugin protocol.
A plugin may come, go and come again at any time; nothing is asked of it before it is needed.
"""

from drivetrain_volume_docker_plugins.driver import DockerPlugin
from drivetrain_volume_docker_plugins.places import Finder

__all__ = ["DockerPlugin", "Finder"]
