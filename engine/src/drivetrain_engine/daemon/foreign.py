"""Data roots of other engines, which are told apart before anything is written to them."""

from __future__ import annotations

from pathlib import Path

from drivetrain.errors import FailedPrecondition

#: What only the other engine makes: its name, then patterns below the data root.
_SIGNS = (
    ("Docker", ("image/*/repositories.json", "network/files/local-kv.db", "buildkit/*.db")),
    ("Podman", ("libpod", "*-images/images.lock", "*-containers/containers.lock")),
    ("containerd", ("io.containerd.metadata.*", "io.containerd.content.*")),
)
_BRING = {
    "Docker": "`docker save IMAGE | engine load`",
    "Podman": "`podman save IMAGE | engine load`",
    "containerd": "`ctr images export - IMAGE | engine load`",
}


def refuse_foreign(root: Path) -> None:
    """Make sure that a data root is ours, or new.

    Raises:
        FailedPrecondition: another engine keeps its data there; nothing was changed.
    """
    if (root / "state.db").exists():
        return
    for engine, signs in _SIGNS:
        if any(next(root.glob(sign), None) is not None for sign in signs):
            raise FailedPrecondition(
                f"{root} is a data root of {engine}, and was left as it is: give another"
                f" --data-root; images are brought over by {_BRING[engine]}"
            )
