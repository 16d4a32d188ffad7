"""Where a registry is: mirrors, hosts without TLS, certificates, proxies."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import urllib3

from drivetrain_engine.content.reference import DEFAULT_DOMAIN
from drivetrain_engine.content.registry.settings import RegistrySettings

# Who is asked without verifying is the user's choice, and not news at every request.
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
_HUB = "https://registry-1.docker.io"
_CONNECT, _READ = 15.0, 60.0


class Endpoint(msgspec.Struct, frozen=True):
    """A place to ask.

    Attributes:
        url: without a slash at the end.
        verified: its certificate has to be good.
        domain: of the names of its images.
    """

    url: str
    verified: bool
    domain: str

    def pool(self, settings: RegistrySettings) -> urllib3.PoolManager:
        """Return a pool of connections that trusts whom it should, through a proxy if told."""
        timeout = urllib3.Timeout(connect=_CONNECT, read=_READ)
        retries = urllib3.Retry(total=5, connect=1, read=0, redirect=5, status=0, other=0)
        scheme, host = urlsplit(self.url).scheme, urlsplit(self.url).hostname or ""
        proxy = urllib.request.getproxies().get(scheme)
        options = {
            "timeout": timeout,
            "retries": retries,
            "ssl_context": self._context(settings.certificates),
            "maxsize": max(settings.max_downloads, settings.max_uploads),
        }
        if proxy and not urllib.request.proxy_bypass(host):
            return urllib3.ProxyManager(proxy, **options)  # type: ignore[arg-type]
        return urllib3.PoolManager(**options)  # type: ignore[arg-type]

    def _context(self, certificates: Sequence[Path]) -> ssl.SSLContext:
        context = ssl.create_default_context()
        for folder in (base / self.domain for base in certificates):
            for file in sorted(folder.glob("*.crt")):
                context.load_verify_locations(file)
            for file in sorted(folder.glob("*.cert")):
                context.load_cert_chain(file, file.with_suffix(".key"))
        if not self.verified:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def endpoints(domain: str, settings: RegistrySettings, *, pushing: bool) -> Iterator[Endpoint]:
    """Yield where to ask for images of a domain, in this order; nothing is pushed to mirrors."""
    if domain == DEFAULT_DOMAIN:
        if not pushing:
            for mirror in settings.mirrors:
                place = urlsplit(mirror).netloc
                yield Endpoint(mirror.rstrip("/"), not _insecure(place, settings), place)
        yield Endpoint(_HUB, True, domain)
    elif _insecure(domain, settings):
        yield Endpoint(f"https://{domain}", False, domain)
        yield Endpoint(f"http://{domain}", False, domain)
    else:
        yield Endpoint(f"https://{domain}", True, domain)


def _insecure(domain: str, settings: RegistrySettings) -> bool:
    if domain in settings.insecure:
        return True
    host = urlsplit(f"//{domain}").hostname or ""
    networks = [ipaddress.ip_network(text) for text in ("127.0.0.0/8", "::1/128")]
    for text in settings.insecure:
        try:
            networks.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            continue  # a host
    try:
        found = {str(entry[4][0]).split("%")[0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        found = set()
    return any(ipaddress.ip_address(text) in network for text in found for network in networks)
