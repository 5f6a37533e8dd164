"""Keeping the resident process small: called once, before anything else of it is imported.

Its libraries import at the top what it never uses: paho `urllib.request`, for proxies; pydantic
`importlib.metadata`, for plug-ins; paho `ssl`, which a broker without TLS does not need. With what
these import in turn (email, http.client, zipfile, csv) they take 3 MB. In the place of each stands a module that becomes the real one when somebody first
looks into it, so that nothing a library may do with it fails. (`importlib.util.LazyLoader` is not
enough: a second `import` of the name already loads it.) What all this saves: docs/footprint.md.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from types import ModuleType

UNUSED = ("urllib.request", "importlib.metadata", "ssl")


def stay_small() -> None:
    """Neither import nor build what a resident process that waits does not use.

    Only for a process that will be the resident: models are built at their first use from now on,
    which several threads must not do at once (`trimtab_protocol.base.build_at_first_use`).
    """
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looks through every package
    for name in UNUSED:
        import_at_first_use(name)
    from trimtab_protocol.base import build_at_first_use  # noqa: PLC0415 - imports pydantic

    build_at_first_use()


def import_at_first_use(name: str) -> None:
    """Let `import name` cost nothing until an attribute of it is asked for.

    Does nothing if it is imported already, or is not there.
    """
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None:
        return
    standing_in = ModuleType(name)
    standing_in.__spec__, standing_in.__file__ = spec, spec.origin

    def look_into(attribute: str) -> object:
        if sys.modules.get(name) is standing_in:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    standing_in.__dict__["__getattr__"] = look_into  # PEP 562
    sys.modules[name] = standing_in
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, standing_in)
