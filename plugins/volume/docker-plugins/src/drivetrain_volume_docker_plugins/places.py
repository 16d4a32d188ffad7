"""Where plugins announce themselves: sockets, ``.spec`` and ``.json`` files."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from drivetrain.errors import InvalidArgument
from drivetrain_volume_docker_plugins.driver import DockerPlugin

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.:-]*")


@dataclass(frozen=True, slots=True)
class Places:
    """Directories in which plugins are looked for; the first that has a name wins.

    Attributes:
        sockets: with ``NAME.sock`` or ``NAME/NAME.sock``.
        files: with ``NAME.spec``, ``NAME.json``, or those in a directory ``NAME``.
    """

    sockets: Path = Path("/run/docker/plugins")
    files: tuple[Path, ...] = (Path("/etc/docker/plugins"), Path("/usr/lib/docker/plugins"))


@dataclass(frozen=True, slots=True)
class Address:
    """How a plugin is reached.

    Attributes:
        url: ``unix:///path``, ``tcp://host:port``, ``http://…`` or ``https://…``.
        ca, certificate, key: files for TLS; empty: none.
        verify: whether the server's certificate has to be right.
    """

    url: str
    ca: str = ""
    certificate: str = ""
    key: str = ""
    verify: bool = True

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return bool(self.ca or self.certificate or self.url.startswith("https://"))


def find(name: str, places: Places) -> Address | None:
    """Return the address of a plugin, or ``None``.

    Raises:
        InvalidArgument: its file cannot be understood.
    """
    if not _NAME.fullmatch(name):
        return None
    for path in (places.sockets / f"{name}.sock", places.sockets / name / f"{name}.sock"):
        if _is_socket(path):
            return Address(f"unix://{path}")
    for folder in places.files:
        for stem in (folder / name, folder / name / name):
            spec, document = Path(f"{stem}.spec"), Path(f"{stem}.json")
            if spec.is_file():
                return _checked(Address(spec.read_text(encoding="utf-8").strip()), spec)
            if document.is_file():
                return _checked(_read(document), document)
    return None


def _read(path: Path) -> Address:
    try:
        found = json.loads(path.read_bytes())
        tls = found.get("TLSConfig") or {}
        return Address(
            str(found["Addr"]),
            str(tls.get("CAFile") or ""),
            str(tls.get("CertFile") or ""),
            str(tls.get("KeyFile") or ""),
            not tls.get("InsecureSkipVerify"),
        )
    except (ValueError, KeyError, AttributeError) as error:
        raise InvalidArgument(f"the plugin file {path} is not understood: {error!r}") from error


def _checked(address: Address, path: Path) -> Address:
    if not re.match(r"(unix|tcp|http|https)://.", address.url):
        raise InvalidArgument(
            f"the plugin file {path} has the address {address.url!r}: "
            "unix://, tcp://, http:// or https:// is needed"
        )
    return address


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def all_names(places: Places) -> list[str]:
    """Return the names of all plugins that are announced, sorted."""
    found: set[str] = set()
    for folder, endings in [
        (places.sockets, (".sock",)),
        *((folder, (".spec", ".json")) for folder in places.files),
    ]:
        for path in _entries(folder):
            found.update(
                entry.stem
                for entry in ([path] if path.suffix in endings else _entries(path))
                if entry.suffix in endings and entry.stem in (path.stem, path.name)
            )
    return sorted(name for name in found if _NAME.fullmatch(name))


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from (folder / name for name in os.listdir(folder))
    except OSError:
        return


class Finder:
    """Makes drivers of plugins, for names that no installed driver has."""

    def __init__(self, places: Places | None = None) -> None:
        self._places = places or Places()

    def names(self) -> Sequence[str]:
        """Return the plugins that are announced; whether they handle volumes is not known."""
        return all_names(self._places)

    def driver(self, name: str) -> object | None:
        """Return a driver for a plugin, or ``None`` when there is none of the name."""
        if find(name, self._places) is None:
            return None
        # looked up again at each call: a plugin may come again at another place
        return DockerPlugin(name, lambda: find(name, self._places))
