"""What users write for a mount, and what Docker says when it is wrong."""

import pytest

from drivetrain.errors import InvalidArgument
from drivetrain_engine.volumes import parse_bind, parse_mount, parse_tmpfs


def fields(parsed, *names):
    return tuple(getattr(parsed, name) for name in names)


@pytest.mark.parametrize(
    ("text", "kind", "source", "target", "read_only"),
    [
        ("/data", "volume", "", "/data", False),
        ("name:/data", "volume", "name", "/data", False),
        ("name:/data:ro", "volume", "name", "/data", True),
        ("/src:/dst", "bind", "/src", "/dst", False),
        ("/src/../other:/dst/./x/", "bind", "/other", "/dst/x", False),
        ("/src:/dst:ro,z,rslave", "bind", "/src", "/dst", True),
        ("/src:/dst:rw,Z,delegated", "bind", "/src", "/dst", False),
    ],
)
def test_a_bind_is_read(text, kind, source, target, read_only):
    parsed = parse_bind(text)
    assert fields(parsed, "type", "source", "target", "read_only") == (
        kind,
        source,
        target,
        read_only,
    )


def test_a_bind_keeps_mode_propagation_nocopy_and_driver():
    assert parse_bind("/a:/b:ro,rshared").propagation == "rshared"
    assert parse_bind("/a:/b:ro,rshared").mode == "ro,rshared"
    assert parse_bind("/a:/b").create_mountpoint is True
    assert parse_bind("n1:/b:nocopy").no_copy is True
    assert parse_bind("n1:/b", "nfs").driver == "nfs"
    assert parse_bind("/b").anonymous is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid volume specification: ''"),
        (":/x", "invalid volume specification: ':/x'"),
        ("a:/b:ro:x", "invalid volume specification: 'a:/b:ro:x'"),
        ("/foo:rw", "invalid volume specification: '/foo:rw'"),
        ("/a:/b:xx", "invalid mode: xx"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/", "destination can't be '/'"),
        ("/a:b", "invalid mount path: 'b' mount path must be absolute"),
        ("b", "invalid mount path: 'b' mount path must be absolute"),
        ("/a:/b:nocopy", "VolumeOptions must not be specified"),
        ("name:/b:rslave", "BindOptions must not be specified"),
        ("./x:/y", "includes invalid characters for a local volume name"),
        ("x:/y", "volume name is too short"),
    ],
)
def test_a_wrong_bind_is_refused_in_dockers_words(text, message):
    with pytest.raises(InvalidArgument) as caught:
        parse_bind(text)
    assert message in str(caught.value)


def test_a_volume_mount_is_read_with_all_it_has():
    parsed = parse_mount(
        {
            "Type": "volume",
            "Source": "data",
            "Target": "/d/",
            "ReadOnly": True,
            "Consistency": "cached",
            "VolumeOptions": {
                "NoCopy": True,
                "Subpath": "a/b/",
                "Labels": {"x": "y"},
                "DriverConfig": {"Name": "nfs", "Options": {"o": "addr=1"}},
            },
        }
    )
    assert fields(parsed, "source", "target", "read_only", "no_copy", "subpath", "driver") == (
        "data",
        "/d",
        True,
        True,
        "a/b",
        "nfs",
    )
    assert fields(parsed, "driver_options", "labels") == ({"o": "addr=1"}, {"x": "y"})


def test_a_bind_mount_is_read_with_all_it_has(tmp_path):
    parsed = parse_mount(
        {
            "Type": "bind",
            "Source": str(tmp_path),
            "Target": "/d",
            "ReadOnly": True,
            "BindOptions": {
                "Propagation": "rslave",
                "NonRecursive": True,
                "ReadOnlyNonRecursive": True,
            },
        }
    )
    assert fields(parsed, "propagation", "non_recursive", "read_only_non_recursive") == (
        "rslave",
        True,
        True,
    )
    assert parsed.create_mountpoint is False


def test_a_tmpfs_is_read_in_both_forms():
    options = {"SizeBytes": 1 << 20, "Mode": 0o700, "Options": [["noexec"], ["uid", "5"]]}
    parsed = parse_mount({"Type": "tmpfs", "Target": "/t", "TmpfsOptions": options})
    assert fields(parsed, "tmpfs_size", "tmpfs_mode", "tmpfs_options") == (
        1 << 20,
        0o700,
        ("noexec", "uid=5"),
    )
    parsed = parse_tmpfs("/t", "size=64m,mode=1770,exec,ro")
    assert fields(parsed, "tmpfs_size", "tmpfs_mode", "tmpfs_options", "read_only") == (
        64 << 20,
        0o1770,
        ("exec",),
        True,
    )


def test_an_image_mount_is_read_only():
    body = {"Type": "image", "Source": "app:1", "Target": "/i", "ImageOptions": {"Subpath": "x"}}
    parsed = parse_mount(body)
    assert fields(parsed, "type", "source", "read_only", "subpath") == ("image", "app:1", True, "x")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"Target": "/x"}, 'invalid mount config for type "": mount type unknown'),
        ({"Type": "npipe", "Target": "/x"}, "mount type unknown"),
        ({"Type": "bind", "Source": "/"}, "field Target must not be empty"),
        ({"Type": "bind", "Source": "/", "Target": "/"}, "destination can't be '/'"),
        ({"Type": "bind", "Source": "/", "Target": "x"}, "'x' mount path must be absolute"),
        ({"Type": "bind", "Target": "/x"}, "field Source must not be empty"),
        ({"Type": "bind", "Source": "a", "Target": "/x"}, "'a' mount path must be absolute"),
        (
            {"Type": "bind", "Source": "/no/such", "Target": "/x"},
            'invalid mount config for type "bind": bind source path does not exist: /no/such',
        ),
        (
            {"Type": "bind", "Source": "/", "Target": "/x", "VolumeOptions": {"NoCopy": True}},
            "field VolumeOptions must not be specified",
        ),
        (
            {"Type": "bind", "Source": "/", "Target": "/x", "BindOptions": {"Propagation": "p"}},
            "invalid propagation mode: p",
        ),
        (
            {
                "Type": "bind",
                "Source": "/",
                "Target": "/x",
                "BindOptions": {"ReadOnlyForceRecursive": True},
            },
            "ReadOnlyForceRecursive but not ReadOnly",
        ),
        (
            {"Type": "volume", "Target": "/x", "ReadOnly": True},
            "must not set ReadOnly mode when using anonymous volumes",
        ),
        (
            {"Type": "volume", "Target": "/x", "VolumeOptions": {"Subpath": "s"}},
            "must not set Subpath when using anonymous volumes",
        ),
        (
            {
                "Type": "volume",
                "Source": "nn",
                "Target": "/x",
                "VolumeOptions": {"Subpath": "../s"},
            },
            "subpath must be a relative path within the volume",
        ),
        ({"Type": "volume", "Source": "a/b", "Target": "/x"}, "includes invalid characters"),
        ({"Type": "tmpfs", "Source": "x", "Target": "/x"}, "field Source must not be specified"),
        (
            {"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Options": [["nope"]]}},
            "invalid tmpfs option",
        ),
        ({"Type": "image", "Target": "/x"}, "field Source must not be empty"),
        ({"Type": "volume", "Source": 5, "Target": "/x"}, "field Source must be a string"),
    ],
)
def test_a_wrong_mount_is_refused_in_dockers_words(body, message):
    with pytest.raises(InvalidArgument) as caught:
        parse_mount(body)
    assert message in str(caught.value)


def test_a_wrong_tmpfs_option_is_named():
    with pytest.raises(InvalidArgument, match="invalid tmpfs option 'size=much'"):
        parse_tmpfs("/x", "size=much")
    with pytest.raises(InvalidArgument, match="invalid tmpfs option 'sise=1'"):
        parse_tmpfs("/x", "sise=1")
