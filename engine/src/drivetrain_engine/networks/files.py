"""The files that containers find their names in: hosts, resolv.conf, hostname."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

#: Used where the host has only resolvers that containers cannot reach, as docker does.
FALLBACK = ("8.8.8.8", "8.8.4.4")
INSIDE = "127.0.0.11"
HOSTS = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)


class Resolv:
    """What the host's own resolv.conf says."""

    def __init__(self, path: Path = Path("/etc/resolv.conf")) -> None:
        self.servers: list[str] = []
        self.search: list[str] = []
        self.options: list[str] = []
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        for line in lines:
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                self.servers.append(words[1])
            elif len(words) > 1 and words[0] in ("search", "domain"):
                self.search = words[1:]
            elif len(words) > 1 and words[0] == "options":
                self.options += words[1:]

    def reachable(self) -> list[str]:
        """Return the servers that a container can reach: not those on the host's loopback."""
        found = []
        for server in self.servers:
            try:
                local = ip_address(server.partition("%")[0]).is_loopback
            except ValueError:
                continue
            if not local and "%" not in server:
                found.append(server)
        return found or list(FALLBACK)


def resolv_conf(servers: Iterable[str], search: Iterable[str], options: Iterable[str]) -> str:
    """Return the text of a resolv.conf."""
    lines = [f"nameserver {server}" for server in servers]
    domains = [domain for domain in search if domain != "."]
    if domains:
        lines.append(f"search {' '.join(domains)}")
    chosen = list(options)
    if chosen:
        lines.append(f"options {' '.join(chosen)}")
    return "".join(f"{line}\n" for line in lines)


def hosts(extra: Iterable[tuple[str, str]], own: Iterable[tuple[str, str]]) -> str:
    """Return the text of a hosts file.

    Args:
        extra: pairs of address and name that the user gave.
        own: pairs of the container's address and its names.
    """
    return HOSTS + "".join(f"{address}\t{names}\n" for address, names in [*extra, *own])


def write(directory: Path, name: str, text: str) -> None:
    """Write a file in place: it is bind-mounted into a container, so its inode has to stay."""
    path = directory / name
    with path.open("r+" if path.exists() else "w") as file:
        file.write(text)
        file.truncate()
    path.chmod(0o644)
