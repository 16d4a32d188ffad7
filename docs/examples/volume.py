"""A volume driver with every hook: volumes are directories."""

import shutil

from drivetrain import hookimpl
from drivetrain.errors import NotSupported
from drivetrain.options import Option
from drivetrain.storage import Usage
from drivetrain.volume import VolumeInfo, VolumeTraits


class Example:
    @hookimpl
    def volume_probe(self):
        if shutil.which("cp") is None:
            raise NotSupported("cp is missing: apt-get install coreutils")

    @hookimpl
    def volume_traits(self):
        return VolumeTraits(scope="local")

    @hookimpl
    def volume_options(self):
        return (Option("mode", default="0755", help="permissions of the volume's root, octal"),)

    @hookimpl
    def volume_open(self, root):
        self.root = root
        return True

    @hookimpl
    def volume_create(self, name, options):
        place = self.root / name
        place.mkdir(exist_ok=True)
        place.chmod(int(options.string("mode"), 8))
        return True

    @hookimpl
    def volume_mount(self, name, options):
        return self.root / name

    @hookimpl
    def volume_unmount(self, name, options):
        return True

    @hookimpl
    def volume_remove(self, name, options):
        shutil.rmtree(self.root / name, ignore_errors=True)
        return True

    @hookimpl
    def volume_path(self, name, options):
        return self.root / name

    @hookimpl
    def volume_usage(self, name, options):
        entries = list((self.root / name).rglob("*"))
        return Usage(sum(entry.lstat().st_blocks * 512 for entry in entries), len(entries))

    @hookimpl
    def volume_snapshot(self, name, snapshot, options):
        shutil.copytree(self.root / name, self.root / snapshot, symlinks=True)
        return True

    @hookimpl
    def volume_clone(self, source, name, options):
        shutil.copytree(self.root / source, self.root / name, symlinks=True)
        return True

    @hookimpl
    def volume_restore(self, name, source, options):
        shutil.rmtree(self.root / name, ignore_errors=True)  # what a crash left half done, too
        shutil.copytree(self.root / source, self.root / name, symlinks=True)
        return True

    @hookimpl
    def volume_list(self):
        return [VolumeInfo(entry.name) for entry in self.root.iterdir()]

    @hookimpl
    def volume_close(self):
        return True
