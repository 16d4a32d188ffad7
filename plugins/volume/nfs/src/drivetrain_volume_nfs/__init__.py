"""The nfs volume driver: shares of NFS servers, with defaults that suit containers.

``-o share=SERVER:/PATH`` is all that is needed. The server's name is resolved at each mount, and
the mount is ``soft`` with a bounded wait: a server that is gone gives the container an error after
about 30 seconds and never blocks the engine.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import ClassVar

from drivetrain import hookimpl
from drivetrain.errors import InvalidArgument, NotSupported, Unavailable
from drivetrain.host import mounts
from drivetrain.host.mountedvolumes import MountedVolumes
from drivetrain.options import Option, Options
from drivetrain.storage import Mount

#: Tenths of a second, and tries: what a soft mount waits for an answer.
SOFT = ("soft", "timeo=100", "retrans=2")


def _share(name: str, options: Options) -> tuple[str, str]:
    text = options.string("share")
    server, separator, path = text.rpartition(":/")
    if not separator or not server:
        raise InvalidArgument(f"volume {name}: option share={text!r}: SERVER:/PATH is needed")
    return server.strip("[]"), f"/{path}"


class Nfs(MountedVolumes):
    """One mount a volume."""

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("share", required=True, help="SERVER:/PATH"),
        Option("version", "choice", default="4.2", choices=("3", "4", "4.0", "4.1", "4.2"),
               help="protocol version"),
        Option("port", "integer", help="of the server, instead of 2049"),
        Option("hard", "boolean", default=False, help="wait for ever for a server that is gone"),
        Option("ro", "boolean", default=False, help="read only"),
        Option("o", "list", help="further mount options, separated by commas"),
    )  # fmt: skip

    @hookimpl
    def volume_probe(self) -> bool:
        if "\tnfs" not in Path("/proc/filesystems").read_text():
            raise NotSupported("this kernel has no NFS client: modprobe nfs, or another kernel")
        return True

    @hookimpl
    def volume_create(self, name: str, options: Options) -> bool:
        _share(name, options)
        if not 0 <= options.integer("port") < 65536:
            raise InvalidArgument(f"volume {name}: option port: 1 to 65535 is needed")
        return True

    def mount_for(self, name: str, options: Options) -> Mount:
        """Return the mount of a volume; the server's name is resolved here."""
        server, path = _share(name, options)
        try:
            address = socket.getaddrinfo(server, None, type=socket.SOCK_STREAM)[0][4][0]
        except OSError as error:
            raise Unavailable(f"volume {name}: the NFS server {server}: {error}") from error
        flags = [f"addr={address}", f"vers={options.string('version')}", "proto=tcp"]
        flags += ["hard"] if options.boolean("hard") else SOFT
        if options.integer("port"):
            flags.append(f"port={options.integer('port')}")
        if options.string("version") == "3":
            flags.append("nolock")
        if options.boolean("ro"):
            flags.append("ro")
        shown = f"[{server}]" if ":" in server else server
        return Mount("nfs", f"{shown}:{path}", (*flags, *options.strings("o")))

    def attach(self, name: str, options: Options, target: Path) -> None:
        mount = self.mount_for(name, options)
        try:
            mounts.mount((mount,), target)
        except OSError as error:
            raise Unavailable(f"volume {name}: cannot mount {mount.source}: {error}") from error
