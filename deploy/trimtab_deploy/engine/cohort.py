"""Which device takes part in which stage.

Rules:
    1. The order is a hash of the rollout's id and the device's name: no device is always the first
       to suffer, and a restart finds the same order.
    2. Stages are cumulative: a stage of ratio 0.5 after one of count 1 ends when half of all targets
       have had it. A stage that adds nobody is left empty.
    3. The first stage has at least one device, and one of count 1 has exactly one.
    4. A ratio is rounded up, so 1.0 is everybody.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

from trimtab_protocol.rollout import StageSpec


def order_devices(rollout_id: str, devices: Iterable[str]) -> list[str]:
    """The devices in the order in which they get it."""
    return sorted(set(devices), key=lambda device: _rank(rollout_id, device))


def assign_stages(
    rollout_id: str, devices: Iterable[str], stages: Sequence[StageSpec]
) -> list[tuple[str, int]]:
    """The stage of each device that takes part, in order; those beyond the last stage are left out.

    Args:
        rollout_id: Decides the order.
        devices: All targets.
        stages: At least one.
    """
    ordered = order_devices(rollout_id, devices)
    assigned: list[tuple[str, int]] = []
    for stage, spec in enumerate(stages):
        end = _end_of(spec, len(ordered))
        assigned += [(device, stage) for device in ordered[len(assigned) : end]]
    return assigned


def _end_of(spec: StageSpec, targets: int) -> int:
    if spec.count is not None:
        return min(spec.count, targets)
    assert spec.ratio is not None  # StageSpec has either
    return min(math.ceil(spec.ratio * targets), targets)


def _rank(rollout_id: str, device: str) -> bytes:
    return hashlib.sha256(f"{rollout_id}/{device}".encode()).digest()
