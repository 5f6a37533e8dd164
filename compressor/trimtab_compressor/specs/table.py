"""SPECS: from a pass's name to its spec, and from a recipe file's words to a spec."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import fields

from trimtab_compressor.specs.base import Spec
from trimtab_compressor.specs.distillation import (
    Distill,
    DistillDecoupled,
    DistillFeatures,
    DistillHard,
)
from trimtab_compressor.specs.pruning import PruneChannels, PruneLayers, PruneWeights
from trimtab_compressor.specs.quantization import (
    QuantizeDynamic,
    QuantizeFloat16,
    QuantizeStatic,
    QuantizeVerified,
    QuantizeWeights,
)
from trimtab_compressor.specs.quantize_aware import QuantizeAware
from trimtab_compressor.specs.rescue import CorrectBias, Equalize, RoundWeights
from trimtab_compressor.specs.training import Train
from trimtab_compressor.specs.transfer import TransferFeatures, TransferFinetune
from trimtab_protocol.errors import ConfigError, ErrorCode

SPECS: dict[str, type[Spec]] = {
    spec.pass_name: spec
    for spec in (
        Train,
        PruneWeights,
        PruneChannels,
        PruneLayers,
        Distill,
        DistillHard,
        DistillDecoupled,
        DistillFeatures,
        TransferFeatures,
        TransferFinetune,
        QuantizeAware,
        Equalize,
        CorrectBias,
        RoundWeights,
        QuantizeDynamic,
        QuantizeStatic,
        QuantizeWeights,
        QuantizeFloat16,
        QuantizeVerified,
    )
}


def find_spec(pass_name: str) -> type[Spec]:
    """Look a pass up.

    Raises:
        ConfigError: There is none of that name; the message says which names are near.
    """
    if pass_name in SPECS:
        return SPECS[pass_name]
    near = difflib.get_close_matches(pass_name, SPECS, n=3, cutoff=0.4) or list(SPECS)
    raise ConfigError(
        f"unknown pass '{pass_name}'; did you mean {' or '.join(near)}?",
        code=ErrorCode.CONFIG_MISSING,
    )


def read_spec(pass_name: str, parameters: Mapping[str, object]) -> Spec:
    """Make a spec of plain values, as a recipe file gives them.

    Args:
        pass_name: See SPECS.
        parameters: By name; what is left out keeps its default. A whole number may stand for a
            float.

    Raises:
        ConfigError: The pass is unknown; a parameter is misspelt, missing, of another type, or
            refused by the spec.
    """
    spec = find_spec(pass_name)
    types_by_name = _parameter_types(spec)
    given = {}
    for name, value in parameters.items():
        if name not in types_by_name:
            raise ConfigError(f"{pass_name}: unknown parameter '{name}'; {_hint(name, spec)}")
        given[name] = _read_value(pass_name, name, value, types_by_name[name])
    try:
        return spec(**given)
    except TypeError as error:  # only a missing parameter is left: the names were checked above
        missing = str(error).split("argument", 1)[-1].strip("s: ")
        raise ConfigError(f"{pass_name}: parameter {missing} is missing; give it") from error


def _parameter_types(spec: type[Spec]) -> dict[str, object]:
    hints = typing.get_type_hints(spec)
    return {field.name: hints[field.name] for field in fields(spec)}


def _hint(name: str, spec: type[Spec]) -> str:
    known = [field.name for field in fields(spec)]
    if not known:
        return "the pass takes none"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"it takes {', '.join(known)}"


def _read_value(pass_name: str, name: str, value: object, expected: object) -> object:
    """Plain types only: bool is no number, a whole number may stand for a float."""
    kinds = typing.get_args(expected) if isinstance(expected, types.UnionType) else (expected,)
    for kind in kinds:
        if typing.get_origin(kind) is typing.Literal:
            if value in typing.get_args(kind):
                return value
        elif typing.get_origin(kind) is tuple:
            if isinstance(value, list | tuple) and all(isinstance(row, str) for row in value):
                return tuple(value)
        elif type(value) is kind or (type(value) is int and kind is float):
            return value
    words = " or ".join(_name_kind(kind) for kind in kinds)
    raise ConfigError(f"{pass_name}: {name} is {value!r}; it must be {words}")


def _name_kind(kind: object) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(repr(row) for row in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return "a list of texts"
    names = {
        type(None): "left out",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
    }
    return names.get(kind, "a text")  # type: ignore[call-overload, no-any-return]
