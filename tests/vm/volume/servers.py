"""Servers of files on loopback. What they keep is in memory, and the machine ends with them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from drivetrain.host import mounts
from drivetrain.storage import Mount
from drivetrain.testing.filesystems import run
from drivetrain.testing.hosts import eventually


class NfsServer:
    """The kernel's NFS server, with one exported directory.

    Attributes:
        exported: the directory; its path for clients is ``/`` in version 4, and its own in 3.
    """

    def __enter__(self) -> NfsServer:
        self.exported = Path(tempfile.mkdtemp(prefix="exported-"))
        self.exported.chmod(0o755)
        # what servers remember is in a directory of the host's otherwise
        state = Path("/var/lib/nfs")
        mounts.mount((Mount("tmpfs", "tmpfs"),), state)
        for name in ("sm", "sm.bak", "v4recovery"):
            (state / name).mkdir()
        for name in ("etab", "rmtab"):
            (state / name).touch()
        if not mounts.is_mounted(Path("/proc/fs/nfsd")):
            mounts.mount((Mount("nfsd", "nfsd"),), Path("/proc/fs/nfsd"))
        run("rpcbind")
        options = "rw,no_root_squash,insecure,no_subtree_check,fsid=0"
        run("exportfs", "-o", options, f"*:{self.exported}")
        run("rpc.mountd")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        run("exportfs", "-au")

    def start(self) -> None:
        """Serve; clients of an earlier start get what they had open again."""
        run("rpc.nfsd", "--grace-time", "10", "--lease-time", "10", "4")

    def stop(self) -> None:
        """Serve nobody any more: connections are closed, and new ones refused."""
        run("rpc.nfsd", "0")

    @staticmethod
    def cut() -> None:
        """Take the server off the network: nothing arrives, and nothing is refused."""
        # User-mode Linux has no nftables.
        run("iptables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", "2049", "-j", "DROP")

    @staticmethod
    def join() -> None:
        """Undo :meth:`cut`."""
        run("iptables-legacy", "-F", "INPUT")

    def directory(self, name: str) -> Path:
        """Make a directory below the exported one."""
        made = self.exported / name
        made.mkdir(exist_ok=True)
        return made


class SmbServer:
    """A Samba server with the share ``files`` for one user.

    Attributes:
        shared: the directory.
        user, password: who may use it.
    """

    user, password = "root", "geheim"

    def __enter__(self) -> SmbServer:
        self._folder = Path(tempfile.mkdtemp(prefix="smb-"))
        self.shared = self._folder / "files"
        state = self._folder / "state"
        for folder in (self.shared, state):
            folder.mkdir()
        places = ("private dir", "lock directory", "state directory", "cache directory",
                  "pid directory", "ncalrpc dir")  # fmt: skip
        configuration = self._folder / "smb.conf"
        configuration.write_text(
            "[global]\nserver role = standalone\ndisable netbios = yes\nsmb ports = 445\n"
            "interfaces = lo\nbind interfaces only = yes\nload printers = no\n"
            f"log file = {self._folder}/log\n"
            + "".join(f"{place} = {state}\n" for place in places)
            + f"[files]\npath = {self.shared}\nread only = no\n"
        )
        subprocess.run(
            ["smbpasswd", "-c", configuration, "-L", "-a", "-s", self.user],
            input=f"{self.password}\n" * 2, text=True, check=True, capture_output=True,
        )  # fmt: skip
        # in a group of its own, since its end is that of the whole group
        self._process = subprocess.Popen(
            ["smbd", "--foreground", "--no-process-group", f"--configfile={configuration}"],
            start_new_session=True,
        )
        eventually(self._listens, "the SMB server listens")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self._folder)

    def _listens(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text()
        return ":445 " in run("ss", "-Hltn")
