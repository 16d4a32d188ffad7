"""The registry of drivers, with distributions that are installed for the test only."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivetrain import hookimpl
from drivetrain.calling import ContractError
from drivetrain.discovery import Entry
from drivetrain.errors import EngineError, NotFound, NotSupported
from drivetrain.options import Options, parse_options
from drivetrain.registry import DriverInfo, Registry
from drivetrain.testing.distributions import Distributions, distributions
from drivetrain.tracing import Trace

GOOD = """
    from drivetrain import hookimpl
    from drivetrain.options import Option
    from drivetrain.storage import Mount

    class Good:
        @hookimpl
        def storage_open(self, root, options):
            self.root = root
            return True

        @hookimpl
        def layer_options(self):
            return (Option("token", secret=True), Option("size", "size"))

        @hookimpl
        def layer_create(self, key, parents, options):
            if key == "broken":
                raise OSError(28, "No space left on device")
            return True

        @hookimpl
        def layer_mounts(self, key):
            return (Mount("bind", str(self.root / key), ("rw",)),)

        @hookimpl
        def layer_commit(self, key):
            return True

        @hookimpl
        def layer_remove(self, key):
            return True
"""


@pytest.fixture
def pip(tmp_path: Path) -> Iterator[Distributions]:
    with distributions(tmp_path / "site") as made:
        yield made


@pytest.fixture
def good(pip: Distributions) -> Distributions:
    pip.install(
        "acme-storage-good",
        version="3.1",
        drivers={"storage/good": "acme_good:Good"},
        modules={"acme_good": GOOD},
    )
    return pip


def install(pip: Distributions, source: str, name: str = "odd") -> None:
    """Install a storage driver ``name`` whose class is ``Driver``."""
    pip.install(
        f"acme-storage-{name}",
        drivers={f"storage/{name}": f"acme_{name}:Driver"},
        modules={f"acme_{name}": source},
    )


def info(name: str, *, load: bool = True, **settings: object) -> DriverInfo:
    found = Registry(**settings).describe("storage", load=load)  # type: ignore[arg-type]
    return next(one for one in found if one.name == name)


def test_a_driver_is_found_by_its_entry_point_and_loaded_alone(good: Distributions) -> None:
    install(good, "raise RuntimeError('nobody asked for me')", "other")
    registry = Registry()
    assert {"good", "other"} <= set(registry.names("storage"))
    assert "acme_good" not in sys.modules
    driver = registry.storage("good")
    assert driver.label == "good (acme-storage-good 3.1)"
    assert "acme_good" in sys.modules
    assert "acme_other" not in sys.modules
    assert driver.call.storage_open(good.folder, Options()) is True
    assert driver.call.layer_mounts("k", (), False)[0].source == str(good.folder / "k")


def test_each_use_has_an_instance_of_its_own(good: Distributions) -> None:
    registry = Registry()
    assert registry.storage("good").instance is not registry.storage("good").instance


def test_an_optional_hook_that_is_absent_falls_to_its_default(good: Distributions) -> None:
    driver = Registry().storage("good")
    assert not driver.implements("layer_usage")
    assert driver.implements("layer_create")
    assert driver.call.layer_usage("k", ()) is None
    assert driver.call.storage_status() == ()


def test_a_driver_that_is_not_installed_is_told_with_a_way_to_get_it(good: Distributions) -> None:
    with pytest.raises(NotFound) as caught:
        Registry().storage("nowhere")
    assert "No such storage driver: nowhere (installed: " in str(caught.value)
    assert "good" in str(caught.value)
    assert "pip install drivetrain-storage-nowhere" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("class Driver: def", "SyntaxError: "),
        ("x = 1", "AttributeError: module 'acme_odd' has no attribute 'Driver'"),
        ("def Driver(): ...", "TypeError: acme_odd:Driver is not a class"),
        ("class Driver:\n    def __init__(self): 1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_what_cannot_be_imported_is_reported_and_keeps_nobody_else_down(
    good: Distributions, source: str, reason: str
) -> None:
    install(good, source)
    with pytest.raises(NotSupported) as caught:
        Registry().storage("odd")
    said = str(caught.value)
    assert "storage driver odd from acme-storage-odd 1.0 cannot be loaded: " in said
    assert reason in said
    found = info("odd")
    assert (found.state, found.distribution, found.version) == ("broken", "acme-storage-odd", "1.0")
    assert reason in found.reason
    assert info("good").state == "ok"


@pytest.mark.parametrize("blocked", ["odd", "storage/odd", "x,odd", "x storage/odd"])
def test_a_blocked_driver_is_never_imported(
    pip: Distributions, monkeypatch: pytest.MonkeyPatch, blocked: str
) -> None:
    install(pip, "raise AssertionError('imported')")
    monkeypatch.setenv("DRIVETRAIN_BLOCK", blocked)
    assert "odd" not in Registry().names("storage")
    assert info("odd").state == "blocked"
    with pytest.raises(NotSupported, match="storage driver odd is blocked by DRIVETRAIN_BLOCK"):
        Registry().storage("odd")
    assert "acme_odd" not in sys.modules


def test_blocking_in_one_family_leaves_the_name_in_others(good: Distributions) -> None:
    assert info("good", block=["log/good"]).state == "ok"
    assert info("good", block=["storage/good"]).state == "blocked"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("def layer_commit", "def layer_comit"), "layer_comit is not a hook"),
        (("def layer_commit", "def layer_comit"), "layer_commit"),
        (("def layer_remove(self, key)", "def layer_remove(self, kye)"), "no argument kye"),
        (("def layer_remove(self, key)", "def layer_remove(self, kye)"), "key"),
        (("def layer_remove(self, key)", "def layer_remove(self, *args)"), "takes *args"),
        (("def layer_remove(self, key)", "def layer_remove(self, key='')"), "gives its argument"),
        (("def layer_remove", "async def layer_remove"), "layer_remove is async"),
        (("def layer_commit", "def volume_mount"), "but of volume"),
        (("@hookimpl\n        def layer_commit", "def layer_commit"), "lacks the marker @hookimpl"),
        (("@hookimpl\n        def layer_commit", "def lay_commit"), "layer_commit is missing"),
    ],
)
def test_what_does_not_keep_to_the_contract_is_an_error_at_load(
    pip: Distributions, change: tuple[str, str], said: str
) -> None:
    assert change[0] in GOOD
    install(pip, GOOD.replace("class Good", "class Driver").replace(*change))
    with pytest.raises(ContractError) as caught:
        Registry().storage("odd")
    assert "storage driver odd (acme-storage-odd 1.0) does not keep to the contract" in str(
        caught.value
    )
    assert said in str(caught.value)
    assert info("odd").state == "broken"


def test_two_distributions_with_one_name_are_both_named_and_none_is_taken(
    good: Distributions,
) -> None:
    good.install("rival", version="9", drivers={"storage/good": "rival_module:Good"})
    assert "good" not in Registry().names("storage")
    found = info("good", load=False)
    assert (found.state, found.distribution) == ("broken", "acme-storage-good, rival")
    with pytest.raises(NotSupported) as caught:
        Registry().storage("good")
    assert "announced by acme-storage-good 3.1 and rival 9" in str(caught.value)
    assert "uninstall all but one" in str(caught.value)
    assert "rival_module" not in sys.modules


def test_a_removed_distribution_is_gone_at_once(good: Distributions) -> None:
    assert "good" in Registry().names("storage")
    for file in (good.folder / "acme_storage_good-3.1.dist-info").iterdir():
        file.unlink()
    (good.folder / "acme_storage_good-3.1.dist-info").rmdir()
    assert "good" not in Registry().names("storage")


def test_describe_without_loading_imports_nothing(good: Distributions) -> None:
    found = info("good", load=False)
    assert found == DriverInfo("storage", "good", "acme-storage-good", "3.1", "ok")
    assert "acme_good" not in sys.modules


def test_an_error_names_driver_distribution_and_hook(good: Distributions) -> None:
    driver = Registry().storage("good")
    with pytest.raises(EngineError) as caught:
        driver.call.layer_create("broken", (), Options(), "container")
    said = str(caught.value)
    assert "storage driver good (acme-storage-good 3.1) failed in layer_create" in said
    assert "No space left on device" in said
    provider = caught.value.provider
    assert provider is not None
    assert (provider.distribution, provider.hook) == ("acme-storage-good", "layer_create")


class Watcher:
    """Middleware around hooks of two families."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self.name = name
        self.seen = seen

    @hookimpl(wrapper=True)
    def layer_create(self, key: str):
        self.seen.append(f"{self.name} before {key}")
        result = yield
        self.seen.append(f"{self.name} after {key}")
        return result

    @hookimpl(wrapper=True)
    def layer_usage(self, key: str):
        self.seen.append(f"{self.name} usage")
        return (yield)

    @hookimpl(wrapper=True)
    def volume_create(self, name: str):
        self.seen.append(f"{self.name} volume {name}")
        return (yield)


def test_middleware_wraps_any_hook_the_first_outermost(good: Distributions, tmp_path: Path) -> None:
    seen: list[str] = []
    registry = Registry(middleware=[Watcher("a", seen), Watcher("b", seen)])
    driver = registry.storage("good")
    driver.call.layer_create("k", (), Options(), "container")
    assert seen == ["a before k", "b before k", "b after k", "a after k"]
    seen.clear()
    driver.call.layer_usage("k", ())
    assert seen == ["a usage", "b usage"], "defaults are wrapped too"
    volume = registry.volume("local")
    volume.call.volume_open(tmp_path)
    seen.clear()
    volume.call.volume_create("v", parse_options("local", volume.call.volume_options(), {}))
    assert seen == ["a volume v", "b volume v"]


def test_middleware_can_change_what_a_driver_answers_and_its_error_is_its_own(
    good: Distributions,
) -> None:
    class Faulty:
        @hookimpl(wrapper=True)
        def layer_remove(self, key: str):
            if key == "kept":
                raise NotSupported("kept by policy")
            yield
            return "changed"

    driver = Registry(middleware=[Faulty()]).storage("good")
    assert driver.call.layer_remove("k") == "changed"
    with pytest.raises(NotSupported, match="kept by policy") as caught:
        driver.call.layer_remove("kept")
    assert caught.value.provider is None


def test_middleware_that_is_no_wrapper_or_wraps_no_hook_is_refused(good: Distributions) -> None:
    class Plain:
        @hookimpl
        def layer_remove(self, key: str) -> bool:
            return True

    class Misspelt:
        @hookimpl(wrapper=True)
        def layer_remov(self, key: str):
            return (yield)

    with pytest.raises(ContractError, match="must be marked @hookimpl"):
        Registry(middleware=[Plain()]).storage("good")
    with pytest.raises(ContractError, match=r"layer_remov is not a hook.*layer_remove"):
        Registry(middleware=[Misspelt()]).storage("good")


def test_an_extension_brings_middleware_by_its_entry_point(good: Distributions) -> None:
    good.install(
        "acme-extension",
        drivers={"extension/watch": "acme_watch:Watch"},
        modules={
            "acme_watch": """
            from drivetrain import hookimpl
            seen = []

            class Around:
                @hookimpl(wrapper=True)
                def layer_commit(self, key):
                    seen.append(key)
                    return (yield)

            class Watch:
                @hookimpl
                def extension_middleware(self):
                    return (Around(),)
            """
        },
    )
    Registry().storage("good").call.layer_commit("k")
    assert sys.modules["acme_watch"].seen == ["k"]


def test_the_trace_shows_hook_driver_arguments_and_time_and_masks_secrets(
    good: Distributions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRIVETRAIN_TRACE", "1")
    driver = Registry().storage("good")
    given = Options({"token": "hunter2", "size": 5}, {"token": "hunter2", "size": "5"})
    driver.call.layer_create("k", ("p",), given, "container")
    with pytest.raises(EngineError):
        driver.call.layer_create("broken", (), Options(), "container")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(
        "drivetrain: storage/good layer_create(key='k', parents=['p'], "
        "options={token=***, size=5}, use='container') -> True ["
    )
    assert lines[0].endswith(" ms]")
    assert "!! Exhausted: storage driver good" in lines[1]
    assert "hunter2" not in "".join(lines)


def test_the_trace_shows_no_output_of_containers() -> None:
    from drivetrain.log import Batch

    stream = io.StringIO()
    registry = Registry(trace=False)
    registry._trace = Trace(stream)
    driver = registry.log("none")
    driver.call.log_write(Batch("stdout", 1, [b"my password is x"]))
    assert "log/none log_write(" in stream.getvalue()
    assert "password" not in stream.getvalue()


@pytest.mark.parametrize("value", ["0", ""])
def test_without_the_switch_nothing_is_traced(
    good: Distributions,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    value: str,
) -> None:
    monkeypatch.setenv("DRIVETRAIN_TRACE", value)
    Registry().storage("good").call.layer_commit("k")
    assert capsys.readouterr().err == ""


def test_entry_points_are_read_as_pip_writes_them(pip: Distributions) -> None:
    folder = pip.folder / "spaced.thing-2.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: Spaced.Thing\nVersion: 2.0\n")
    (folder / "entry_points.txt").write_text(
        "# comment\n[console_scripts]\nx = y:z\n\n[ drivetrain.log ]\n; another\n"
        "odd-name = a.b:C.D [extra]\n"
    )
    found = [info for info in Registry().describe("log", load=False) if info.name == "odd-name"]
    assert found == [DriverInfo("log", "odd-name", "Spaced.Thing", "2.0", "ok")]
    assert Entry._fields == ("family", "name", "value", "distribution", "version")
