"""Budgets as they are written on a command line.

p90_ms=0.05              for every class
pi4:p90_ms=20            for one class; it wins over the one for every class
size_bytes=300KB         sizes may end in KB, MB (1,000) or KiB, MiB (1,024)
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import ValidationError

from trimtab_protocol.base import describe_validation_error
from trimtab_protocol.budget import Budget, Metric
from trimtab_protocol.errors import ConfigError

_RULE = re.compile(r"^(?:(?P<cls>[a-z0-9][a-z0-9._-]*):)?(?P<metric>[a-z0-9_]+)=(?P<value>.+)$")
_NUMBER = re.compile(r"^(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)(?P<unit>KB|MB|KiB|MiB|)$")
_UNITS = {"": 1, "KB": 1000, "MB": 1000**2, "KiB": 1024, "MiB": 1024**2}
_BYTE_METRICS = {Metric.SIZE_BYTES, Metric.PEAK_MEMORY_BYTES}


def parse_budgets(
    rules: Sequence[str], classes: Sequence[str], max_drop: float | None = None
) -> dict[str, Budget]:
    """Turn rules into one budget per device class.

    Args:
        rules: As written; later ones win over earlier ones of the same kind.
        classes: All device classes of the fit.
        max_drop: Largest accuracy drop for every class, as a ratio (0.005 is half a point).

    Raises:
        ConfigError: A rule cannot be read, or names an unknown metric or class.
    """
    shared: dict[Metric, float] = {}
    own: dict[str, dict[Metric, float]] = {name: {} for name in classes}
    for rule in rules:
        device_class, metric, limit = _parse_rule(rule)
        if device_class is not None and device_class not in own:
            raise ConfigError(
                f"budget '{rule}' is for class '{device_class}', which is not among "
                f"{', '.join(classes)}; add --class {device_class}"
            )
        (shared if device_class is None else own[device_class])[metric] = limit
    if max_drop is not None and not 0 <= max_drop <= 1:
        raise ConfigError(
            f"--max-drop {max_drop:g} is not a ratio from 0 to 1; 0.05 is five points"
        )
    if max_drop is not None:
        shared[Metric.ACCURACY_DROP] = max_drop
    try:
        return {name: Budget(limits={**shared, **own[name]}) for name in classes}
    except ValidationError as error:
        raise ConfigError(f"budget: {describe_validation_error(error)}") from error


def _parse_rule(rule: str) -> tuple[str | None, Metric, float]:
    found = _RULE.match(rule)
    if found is None:
        raise ConfigError(
            f"budget '{rule}' cannot be read; write METRIC=LIMIT or CLASS:METRIC=LIMIT, "
            "such as p90_ms=20"
        )
    known = {metric.value: metric for metric in Metric}
    metric = known.get(found["metric"])
    if metric is None:
        raise ConfigError(
            f"budget '{rule}': unknown metric '{found['metric']}'; use one of {', '.join(known)}"
        )
    return found["cls"], metric, _parse_limit(rule, metric, found["value"])


def _parse_limit(rule: str, metric: Metric, text: str) -> float:
    found = _NUMBER.match(text)
    if found is None or (found["unit"] and metric not in _BYTE_METRICS):
        raise ConfigError(
            f"budget '{rule}': '{text}' is not a limit for {metric.value}; give a plain number"
            + (", or one with KB or MB" if metric in _BYTE_METRICS else " in the unit of its name")
        )
    return float(found["number"]) * _UNITS[found["unit"]]
