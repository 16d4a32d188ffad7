"""A storage driver with every hook: layers are directories on a pool, copied from their parent."""

import os
import shutil
import subprocess

from drivetrain import hookimpl
from drivetrain.errors import Exhausted, NotSupported
from drivetrain.options import Option
from drivetrain.storage import Change, Mount, Usage


class Example:
    @hookimpl
    def storage_probe(self, root):
        if shutil.which("cp") is None:
            raise NotSupported("cp is missing: apt-get install coreutils")

    @hookimpl
    def storage_options(self):
        return (Option("example.min_space", "size", default=0, help="refuse layers below it"),)

    @hookimpl
    def layer_options(self):
        return (Option("size", "size", help="limit of the writable layer"),)

    @hookimpl
    def storage_open(self, root, options):
        self.root = root
        self.min_space = options.integer("example.min_space") or 0
        for half_made in root.glob("*.making"):
            shutil.rmtree(half_made)
        return True

    @hookimpl
    def layer_create(self, key, parents, options, use):
        if options.integer("size"):
            raise NotSupported("this file system has no quotas: leave out size")
        if shutil.disk_usage(self.root).free < self.min_space:
            raise Exhausted(f"{self.root} has less free space than example.min_space")
        self.layer_remove(key)
        making = self.root / f"{key}.making"
        if parents:
            subprocess.run(["cp", "-a", self.root / parents[0], making], check=True)
        else:
            making.mkdir(mode=0o755)
        making.rename(self.root / key)
        return True

    @hookimpl
    def layer_mounts(self, key, parents, read_only):
        return (Mount("bind", str(self.root / key), ("ro" if read_only else "rw",)),)

    @hookimpl
    def layer_unmounted(self, key):
        return True  # a driver with devices would deactivate one here

    @hookimpl
    def layer_commit(self, key):
        return True

    @hookimpl
    def layer_remove(self, key):
        shutil.rmtree(self.root / key, ignore_errors=True)
        return True

    @hookimpl
    def layer_usage(self, key, parents):
        entries = list((self.root / key).rglob("*"))
        return Usage(sum(entry.lstat().st_blocks * 512 for entry in entries), len(entries))

    @hookimpl
    def layer_metadata(self, key, parents):
        return {"Directory": str(self.root / key)}

    @hookimpl
    def layer_changes(self, key, parents):
        if parents:
            return None  # the core compares the mounted trees
        folder = os.fsencode(self.root / key)
        return [Change(b"/" + name, "added") for name in sorted(os.listdir(folder))]

    @hookimpl
    def layer_snapshot_time(self, key):
        return 0  # a copy, whose files have inodes of their own

    @hookimpl
    def storage_status(self):
        return (("Root", str(self.root)),)

    @hookimpl
    def storage_close(self):
        return True
