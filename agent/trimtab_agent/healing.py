"""After a start: links must lead to whole models, or give way to what is whole."""

from __future__ import annotations

import logging
from collections.abc import Callable

from trimtab_agent.store import Slot, Store
from trimtab_protocol.errors import StorageError

log = logging.getLogger(__name__)


def heal_links(store: Store, name: str) -> None:
    """A damaged active model gives way to the last good one, a damaged last good one is forgotten.

    Raises:
        StorageError: A link cannot be changed.
    """
    if not _is_whole(store.last_good, name):
        store.forget_last_good(name)
        log.error("%s: the last good slot is damaged, and forgotten", name)
    if not _is_whole(store.active, name):
        good = store.restore_last_good(name)
        log.error("%s: the active slot is damaged, back to %s", name, good and good.ref)


def _is_whole(read_slot: Callable[[str], Slot | None], name: str) -> bool:
    try:
        slot = read_slot(name)
    except StorageError:
        return False
    return slot is None or slot.is_whole()
