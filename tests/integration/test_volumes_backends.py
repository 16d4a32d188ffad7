"""Volume drivers whose backends know volumes of their own, fall silent, or are gone."""

import importlib

import pytest
from tests.volumes import Service

from drivetrain.errors import (
    AlreadyExists,
    InUse,
)
from drivetrain.testing.distributions import distributions
from drivetrain_engine.volumes import drivers


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path)
    yield service
    service.clear()


@pytest.fixture
def volumes(service):
    return service.volumes


def names(result):
    return [shown["Name"] for shown in result[0]]


BACKEND = """
    import threading
    from drivetrain import hookimpl
    from drivetrain.errors import Unavailable
    from drivetrain.volume import VolumeInfo, VolumeTraits

    MADE = {"theirs"}
    STATE = {"answer": "yes"}
    NEVER = threading.Event()
    ASKED = [0]

    class Backend:
        @hookimpl
        def volume_traits(self):
            return VolumeTraits("global", own_state=True)

        @hookimpl
        def volume_open(self, root):
            self.root = root

        @hookimpl
        def volume_create(self, name):
            MADE.add(name)
            return True

        @hookimpl
        def volume_mount(self, name):
            return self.root

        @hookimpl
        def volume_remove(self, name):
            MADE.discard(name)
            return True

        @hookimpl
        def volume_list(self):
            ASKED[0] += 1
            if STATE["answer"] == "no":
                raise Unavailable("the server does not answer")
            if STATE["answer"] == "never":
                NEVER.wait()
            return [VolumeInfo(name) for name in sorted(MADE)]
"""


@pytest.fixture
def backend(tmp_path):
    """The module of a driver whose backend has volumes of its own, and can fall silent."""
    folder = tmp_path / "site"
    folder.mkdir()
    with distributions(folder) as installed:
        installed.install(
            "their-volumes",
            drivers={"volume/theirs": "their_volumes:Backend"},
            modules={"their_volumes": BACKEND},
        )
        module = importlib.import_module("their_volumes")
        yield module
        module.NEVER.set()


def test_volumes_that_only_the_backend_knows_are_listed_and_usable(backend, volumes):
    volumes.create("ours", "theirs")
    volumes.create("plain")
    assert names(volumes.list()) == ["ours", "plain", "theirs"]
    assert volumes.inspect("theirs")["Scope"] == "global"
    volumes.acquire("theirs", "c1")
    with pytest.raises(InUse):
        volumes.remove("theirs")
    with pytest.raises(AlreadyExists, match='"theirs" already exists with the "theirs" driver'):
        volumes.create("theirs", "local")


def test_volumes_of_a_backend_that_nothing_has_used_yet_are_listed_and_usable(backend, service):
    found, warnings = service.volumes.list()
    assert [(shown["Name"], shown["Driver"]) for shown in found] == [("theirs", "theirs")]
    assert warnings == []
    opened = [folder.name for folder in (service.root / "volumes").iterdir()]
    assert opened == ["theirs"], "drivers that have no volumes of their own are not opened"
    assert service.start().mount("theirs", "c1") == service.root / "volumes" / "theirs"


def test_a_backend_that_nothing_uses_is_waited_for_once(backend, volumes, monkeypatch):
    monkeypatch.setattr(drivers, "LIST_TIMEOUT", 0.3)
    backend.STATE["answer"] = "never"
    volumes.create("one")
    asked = backend.ASKED[0]
    volumes.create("two")
    assert backend.ASKED[0] == asked == 1
    assert volumes.list()[1] == ["volume driver theirs: no answer within 0.3 s"]
    backend.STATE["answer"] = "yes"
    assert names(volumes.list()) == ["one", "theirs", "two"]


@pytest.mark.parametrize(
    ("answer", "warning"),
    [
        ("no", "volume driver theirs: the server does not answer"),
        ("never", "volume driver theirs: no answer within 0.3 s"),
    ],
)
def test_a_dead_backend_degrades_the_list_to_a_warning(
    backend, volumes, monkeypatch, answer, warning
):
    monkeypatch.setattr(drivers, "LIST_TIMEOUT", 0.3)
    volumes.create("ours", "theirs")
    volumes.create("plain")
    backend.STATE["answer"] = answer
    found, warnings = volumes.list()
    assert [shown["Name"] for shown in found] == ["ours", "plain"]
    assert warnings == [warning]


def test_volumes_of_a_driver_that_was_uninstalled_stay_listed(backend, service, tmp_path):
    service.volumes.create("ours", "theirs")
    (tmp_path / "site" / "their_volumes.py").rename(tmp_path / "gone.py")
    for info in (tmp_path / "site").glob("*.dist-info"):
        info.rename(tmp_path / info.name)
    found, warnings = service.start().list()
    assert [(shown["Name"], shown["Driver"]) for shown in found] == [("ours", "theirs")]
    assert "pip install drivetrain-volume-theirs" in warnings[0]


def test_global_volumes_are_not_pruned(backend, volumes):
    volumes.create("ours", "theirs")
    assert volumes.prune({"all": ["true"]})["VolumesDeleted"] == []
