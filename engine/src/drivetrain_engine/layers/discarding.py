"""Removing unpacked layers of images that nobody needs."""

from __future__ import annotations

from collections.abc import Callable, Collection

from drivetrain_engine.layers.records import LayerRecord, LayerRecords


def discard(
    records: LayerRecords, kept: Collection[str], remove: Callable[[LayerRecord], None]
) -> None:
    """Remove layers of images.

    Args:
        records: of all layers.
        kept: keys that stay, whatever driver has them; those that containers stand on stay, too.
        remove: removes a layer, then its record.
    """
    found = list(records)
    needed = {
        (record.driver, key) for record in found if not record.committed for key in record.parents
    }
    # The deepest first: a layer with children is never removed.
    for record in sorted(found, key=lambda one: -len(one.parents)):
        free = record.key not in kept and (record.driver, record.key) not in needed
        if free and record.committed and not record.container:
            # After a crash in between nobody builds on what is half removed.
            record.committed = False
            records.put(record)
            remove(record)
