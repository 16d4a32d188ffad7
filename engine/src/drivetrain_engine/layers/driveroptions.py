"""Which storage driver an option of the daemon is for, since several are in use side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from drivetrain.errors import EngineError
from drivetrain.options import parse_options
from drivetrain.registry import Registry


def sort_options(
    registry: Registry, default: str, given: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Return the options for each storage driver that gets some.

    An option goes to the driver that declares options of its prefix, as ``btrfs.min_space`` has
    ``btrfs``, whatever the default driver is. ``vfs.size`` is the ``size`` of vfs, which has
    options without a prefix. All others go to the default driver.

    Args:
        registry: the installed drivers.
        default: the driver for new containers.
        given: as given (``--storage-opt``).

    Raises:
        InvalidArgument: a driver does not know an option, or its value is wrong; names it.
    """
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    schemas = {default: registry.storage(default).call.storage_options()}
    own = {option.name for option in schemas[default]}
    if not own.issuperset(given):  # only then are other drivers loaded
        for name in registry.names("storage"):
            try:
                schemas[name] = registry.storage(name).call.storage_options()
            except EngineError:  # a broken driver is no reason not to start with another
                continue
    owners = {
        option.name.partition(".")[0]: name
        for name, schema in schemas.items()
        for option in schema
        if "." in option.name
    }
    for key, value in given.items():
        prefix, dot, rest = key.partition(".")
        if key in own or not dot:
            found[default][key] = value
        elif prefix in owners:
            found[owners[prefix]][key] = value
        elif prefix in schemas:
            found[prefix][rest] = value
        else:
            found[default][key] = value
    for name, options in found.items():
        parse_options(f"storage driver {name}", schemas[name], options)
    return dict(found)
