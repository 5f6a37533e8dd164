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
from functools import partial
from types import ModuleType
from typing import Any

UNUSED: dict[str, tuple[str, ...]] = {
    "urllib.request": (),
    "importlib.metadata": ("entry_points", "version"),
    "ssl": (),
}
"""What comes when somebody looks into it, and the functions of it that a library takes by name while it
is imported (pydantic 2.14): these come when they are called."""


def stay_small() -> None:
    """Neither import nor build what a resident process that waits does not use.

    Only for a process that will be the resident: models are built at their first use from now on,
    which several threads must not do at once (`trimtab_protocol.base.build_at_first_use`).
    """
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looks through every package
    for name, functions in UNUSED.items():
        import_at_first_use(name, functions)
    from trimtab_protocol.base import build_at_first_use  # noqa: PLC0415 - imports pydantic

    build_at_first_use()


def import_at_first_use(name: str, functions: tuple[str, ...] = ()) -> None:
    """Let `import name` cost nothing until an attribute of it is asked for.

    Does nothing if it is imported already, or is not there.

    Args:
        name: A module.
        functions: Of it; `from name import function` costs nothing either, until it is called.
    """
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None:
        return
    standing_in = ModuleType(name)
    standing_in.__spec__, standing_in.__file__ = spec, spec.origin

    if spec.submodule_search_locations is not None:  # `from` asks a package for it
        standing_in.__path__ = spec.submodule_search_locations

    def look_into(attribute: str) -> Any:
        if sys.modules.get(name) is standing_in:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    def call(function: str, *arguments: object, **named: object) -> Any:
        return look_into(function)(*arguments, **named)

    standing_in.__dict__["__getattr__"] = look_into  # PEP 562
    standing_in.__dict__.update({function: partial(call, function) for function in functions})
    sys.modules[name] = standing_in
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, standing_in)
