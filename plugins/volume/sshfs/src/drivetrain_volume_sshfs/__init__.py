"""The sshfs volume driver: directories of SSH servers.

``-o sshcmd=USER@HOST:/PATH``, with ``-o password=…`` or ``-o IdentityFile=…``. A password goes to
sshfs through a pipe and is never on a command line. sshfs runs as a process beside the engine and
ends with the last unmount; it survives the engine.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from drivetrain import hookimpl
from drivetrain.errors import InvalidArgument, NotSupported, Unavailable
from drivetrain.host import mounts
from drivetrain.host.mountedvolumes import MountedVolumes
from drivetrain.options import Option, Options

#: Seconds until an unreachable server is given up.
TIMEOUT = 20
#: ssh notices a server that is gone after three of these, in seconds.
ALIVE = 5
COMMAND = re.compile(r"^(?:[^@:\s-][^@:\s]*@)?(?:\[[0-9a-fA-F:]+\]|[^@:\s\[\]-][^@:\s\[\]]*):.*$")
#: Options that ssh or sshfs takes as they are.
PASSED = (
    "IdentityFile", "StrictHostKeyChecking", "UserKnownHostsFile", "Compression", "Ciphers",
    "uid", "gid", "umask", "idmap", "cache",
)  # fmt: skip


class Sshfs(MountedVolumes):
    """One sshfs process a volume."""

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("sshcmd", required=True, help="[USER@]HOST:[PATH]"),
        Option("password", secret=True, help="of the user, instead of a key"),
        Option("port", "integer", help="of the server, instead of 22"),
        Option("allow_other", default="true", help="accepted: containers need it, it is always on"),
        Option("reconnect", default="true", help="accepted: it is always on"),
        *(Option(name, help="as for sshfs or ssh") for name in PASSED),
    )

    @hookimpl
    def volume_probe(self) -> bool:
        if shutil.which("sshfs") is None:
            raise NotSupported("the command sshfs is missing: apt-get install sshfs")
        if not Path("/dev/fuse").exists():
            raise NotSupported("/dev/fuse is missing: modprobe fuse")
        return True

    @hookimpl
    def volume_create(self, name: str, options: Options) -> bool:
        text = options.string("sshcmd")
        if not COMMAND.match(text):
            raise InvalidArgument(
                f"volume {name}: option sshcmd={text!r}: [USER@]HOST:[PATH] is needed"
            )
        if not 0 <= options.integer("port") < 65536:
            raise InvalidArgument(f"volume {name}: option port: 1 to 65535 is needed")
        for key in PASSED:
            if "," in options.string(key) or "\n" in options.string(key):
                raise InvalidArgument(f"volume {name}: option {key} must not hold a comma")
        return True

    def _command(self, options: Options, target: Path) -> list[str]:
        flags = [
            "allow_other", "reconnect", f"ServerAliveInterval={ALIVE}", "ServerAliveCountMax=3",
            f"ConnectTimeout={TIMEOUT // 2}", "default_permissions",
        ]  # fmt: skip
        flags += [f"{key}={options.string(key)}" for key in PASSED if options.string(key)]
        if options.string("password"):
            flags += ["password_stdin", "PreferredAuthentications=password,keyboard-interactive"]
        else:
            flags.append("BatchMode=yes")
        command = ["sshfs", options.string("sshcmd"), str(target), "-o", ",".join(flags)]
        if options.integer("port"):
            command += ["-p", str(options.integer("port"))]
        return command

    def attach(self, name: str, options: Options, target: Path) -> None:
        try:
            done = subprocess.run(
                self._command(options, target),
                input=f"{options.string('password')}\n",
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            mounts.unmount(target)
            raise Unavailable(
                f"volume {name}: {options.string('sshcmd')} does not answer within {TIMEOUT} s"
            ) from None
        if done.returncode != 0:
            reason = done.stderr.strip() or f"sshfs ended with {done.returncode}"
            raise Unavailable(f"volume {name}: cannot mount {options.string('sshcmd')}: {reason}")
