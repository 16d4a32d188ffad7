"""SMB shares by the local driver, against the kernel's server; passwords are not shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.vm.volume.servers import SmbServer
from tests.volumes import Service

from drivetrain.errors import Unavailable
from drivetrain.testing.filesystems import run


@pytest.fixture(scope="module")
def server() -> Iterator[SmbServer]:
    run("modprobe", "cifs")
    with SmbServer() as server:
        yield server


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    yield service
    service.clear()


@pytest.mark.parametrize("place", ["device=//localhost/files", "addr=localhost"])
def test_a_share_is_mounted_and_its_password_shown_nowhere(
    service: Service, server: SmbServer, place: str
) -> None:
    (server.shared / "file").write_text("remote")
    words = f"username={server.user},password={server.password},uid=7"
    options = {"type": "cifs", "device": "//localhost/files", "o": words}
    if place.startswith("addr"):
        options = {"type": "cifs", "device": "//files.test/files", "o": f"{place},{words}"}
    shown = service.volumes.create("data", options=options)
    path = service.volumes.mount("data", "c1")
    assert (path / "file").read_text() == "remote"
    assert (path / "file").stat().st_uid == 7
    (path / "made").write_text("here")
    assert (server.shared / "made").read_text() == "here"
    assert "password=***" in shown["Options"]["o"]
    for text in (str(shown), str(service.volumes.list()), Path("/proc/mounts").read_text()):
        assert server.password not in text
    service.volumes.unmount("data", "c1")
    assert service.mounted() == []


def test_a_wrong_password_is_refused_without_being_told(
    service: Service, server: SmbServer
) -> None:
    words = f"username={server.user},password=not-{server.password}"
    service.volumes.create(
        "data", options={"type": "cifs", "device": "//127.0.0.1/files", "o": words}
    )
    with pytest.raises(Unavailable, match="failed to mount local volume data") as refused:
        service.volumes.mount("data", "c1")
    assert server.password not in str(refused.value)
    assert service.mounted() == []
