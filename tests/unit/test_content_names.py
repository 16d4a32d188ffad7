"""Names of images, and the instructions of import and commit."""

import pytest

from drivetrain.errors import InvalidArgument
from drivetrain_engine.content.changes import apply_changes
from drivetrain_engine.content.reference import parse_reference, parse_target


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("docker.io/library/busybox:1", "docker.io/library/busybox:1", "busybox:1"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("me/app:v1.0", "docker.io/me/app:v1.0", "me/app:v1.0"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/a/b:2", "localhost:5000/a/b:2", "localhost:5000/a/b:2"),
        ("quay.io/x/y", "quay.io/x/y:latest", "quay.io/x/y:latest"),
    ],
)
def test_a_name_is_normalised_and_shown_as_users_write_it(text, full, familiar):
    reference = parse_reference(text).tagged()
    assert (str(reference), reference.familiar) == (full, familiar)


def test_a_digest_stays_and_gets_no_tag():
    text = "busybox@sha256:" + "a" * 64
    assert parse_reference(text).tagged().familiar == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Busybox", "must be lowercase"),
        ("", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("app:", "invalid reference format"),
        ("app:-x", "invalid reference format"),
        ("../x", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("a" * 300, "255"),
        ("a" * 64, "64-byte hexadecimal"),
    ],
)
def test_what_is_no_name_is_refused(text, reason):
    with pytest.raises(InvalidArgument, match=reason):
        parse_reference(text)


def test_a_tag_can_be_neither_a_digest_nor_named_like_one():
    with pytest.raises(InvalidArgument, match="digest reference"):
        parse_target("app@sha256:" + "a" * 64)
    with pytest.raises(InvalidArgument, match="ambiguous tag"):
        parse_target("sha256:abc")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('CMD ["a", "b c"]', {"Cmd": ["a", "b c"]}),
        ("cmd echo hi", {"Cmd": ["/bin/sh", "-c", "echo hi"]}),
        ('ENTRYPOINT ["/x"]', {"Entrypoint": ["/x"], "Cmd": None}),
        ('ENV A=1 B="2 3"', {"Env": ["A=1", "B=2 3"]}),
        ("ENV A any thing", {"Env": ["A=any thing"]}),
        ("EXPOSE 80 53/udp", {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}),
        ("EXPOSE 7000-7001", {"ExposedPorts": {"7000/tcp": {}, "7001/tcp": {}}}),
        ('LABEL a=b "c d"="e f"', {"Labels": {"a": "b", "c d": "e f"}}),
        ("USER 1:2", {"User": "1:2"}),
        ('VOLUME ["/a", "/b"]', {"Volumes": {"/a": {}, "/b": {}}}),
        ("VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}),
        ("WORKDIR /a/../b", {"WorkingDir": "/b"}),
        ("STOPSIGNAL SIGUSR1", {"StopSignal": "SIGUSR1"}),
        ("STOPSIGNAL 9", {"StopSignal": "9"}),
        ("ONBUILD RUN x", {"OnBuild": ["RUN x"]}),
        ("HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
        (
            "HEALTHCHECK --interval=1m30s --retries=3 CMD curl x",
            {
                "Healthcheck": {
                    "Test": ["CMD-SHELL", "curl x"],
                    "Interval": 90_000_000_000,
                    "Retries": 3,
                }
            },
        ),
    ],
)
def test_an_instruction_changes_the_config(line, expected):
    assert apply_changes({}, [line]) == expected


def test_instructions_add_to_what_is_there_and_leave_the_original_alone():
    original = {"Env": ["A=1", "B=2"], "WorkingDir": "/a", "Cmd": ["old"], "Labels": {"x": "y"}}
    changed = apply_changes(original, ["ENV A=3", "WORKDIR b", "LABEL z=1"])
    assert changed["Env"] == ["A=3", "B=2"]
    assert changed["WorkingDir"] == "/a/b"
    assert changed["Labels"] == {"x": "y", "z": "1"}
    assert original["Env"] == ["A=1", "B=2"]


def test_a_new_entrypoint_clears_an_inherited_command_but_not_a_new_one():
    assert apply_changes({"Cmd": ["old"]}, ['ENTRYPOINT ["x"]'])["Cmd"] is None
    assert apply_changes({}, ['CMD ["c"]', 'ENTRYPOINT ["x"]'])["Cmd"] == ["c"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("RUN x", "RUN is not a valid change command"),
        ("FROM x", "FROM is not a valid change command"),
        ("ENV", "requires at least one argument"),
        ("ENV A", "must have two arguments"),
        ("EXPOSE nothing", "invalid containerPort: nothing"),
        ("EXPOSE 70000", "invalid containerPort: 70000"),
        ("STOPSIGNAL SIGNOT", "invalid signal"),
        ("ONBUILD FROM x", "isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK CMD", "Missing command"),
        ("HEALTHCHECK --bad=1 CMD x", "Unknown flag: bad"),
    ],
)
def test_a_wrong_instruction_is_refused_in_dockers_words(line, reason):
    with pytest.raises(InvalidArgument, match=reason):
        apply_changes({}, [line])
