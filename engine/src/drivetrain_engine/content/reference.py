"""Names of images: parsing, normalising and showing them as Docker does.

``busybox`` means ``docker.io/library/busybox:latest`` and is shown as ``busybox:latest``.
"""

from __future__ import annotations

import re

import msgspec

from drivetrain.errors import InvalidArgument

DEFAULT_DOMAIN = "docker.io"
OFFICIAL = "library/"

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_HEX64 = re.compile(r"[a-f0-9]{64}")


class Reference(msgspec.Struct, frozen=True):
    """A normalised image name; ``str()`` gives it in full, :attr:`familiar` as users write it.

    Attributes:
        domain: of the registry, such as ``docker.io`` or ``localhost:5000``.
        path: of the repository, such as ``library/busybox``.
        tag: empty when none was given and none was defaulted.
        digest: ``sha256:…`` of a manifest, or empty.
    """

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """Registry and path without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """The repository as users write it: without ``docker.io/`` and ``library/``."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        rest = self.path.removeprefix(OFFICIAL)
        return rest if "/" not in rest else self.path

    @property
    def familiar(self) -> str:
        """The whole name as users write it: ``busybox:latest``."""
        return self.familiar_repository + self._suffix()

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return tag + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.repository + self._suffix()

    def tagged(self) -> Reference:
        """Return the reference with ``latest`` filled in when it has neither tag nor digest."""
        if self.tag or self.digest:
            return self
        return Reference(self.domain, self.path, "latest")


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_domain = "." in first or ":" in first or first == "localhost" or first.lower() != first
    if not slash or not is_domain:
        domain, path = DEFAULT_DOMAIN, name
    else:
        domain, path = first, rest
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = OFFICIAL + path
    return domain, path


def parse_reference(text: str) -> Reference:
    """Return the normalised reference that ``text`` means; no tag is filled in.

    Raises:
        InvalidArgument: it is not a reference.
    """
    if _HEX64.fullmatch(text):
        raise InvalidArgument(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    rest, at, digest = text.partition("@")
    name, tag = rest, ""
    if ":" in rest.rpartition("/")[2]:
        name, _, tag = rest.rpartition(":")
        if not _TAG.fullmatch(tag):
            raise InvalidArgument(f"invalid reference format: {text!r} is not a name[:tag]")
    if at and not _DIGEST.fullmatch(digest):
        raise InvalidArgument(f"invalid reference format: {digest!r} is not a digest")
    domain, path = _split_domain(name)
    if path.lower() != path:
        raise InvalidArgument(
            f"invalid reference format: repository name ({path}) must be lowercase"
        )
    if not name or not _DOMAIN.fullmatch(domain) or not _PATH.fullmatch(path):
        raise InvalidArgument(f"invalid reference format: {text!r} is not a name[:tag]")
    if len(path) > 255:
        raise InvalidArgument("repository name must not be more than 255 characters")
    return Reference(domain, path, tag, digest)


def parse_target(text: str) -> Reference:
    """Return the reference for a new tag: tag filled in, digests and ambiguous names refused.

    Raises:
        InvalidArgument: it cannot be the name of a tag.
    """
    reference = parse_reference(text)
    if reference.digest:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    if reference.familiar_repository == "sha256":
        raise InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")
    return reference.tagged()


def short_id(digest: str) -> str:
    """Return the twelve hexadecimal digits that users see of an id or digest."""
    return digest.rpartition(":")[2][:12]
