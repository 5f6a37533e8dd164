"""Kinds of device, and what the name of a device class or this machine's CPU says of its kind. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of device.

    Args:
        name: As people give it with --class.
        summary: Which CPUs, and what they can.
        grid: Channels should be a multiple of this: (float, int8).
    """

    name: str
    summary: str
    grid: tuple[int, int]


GENERIC = "generic"

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("x86-avx2", "x86-64 with AVX2 and without VNNI: U8S8 can saturate", (8, 16)),
        Kind("x86-vnni", "x86-64 with VNNI or AMX: int8 products without saturation", (16, 64)),
        Kind("pi3", "Cortex-A53, no dot product, no float16", (8, 8)),
        Kind("pi4", "Cortex-A72, no dot product, no float16", (8, 8)),
        Kind("pi5", "Cortex-A76, dot product and float16", (8, 16)),
        Kind("orin-cpu", "Cortex-A78AE, dot product and float16", (8, 16)),
        Kind(
            "jetson-gpu",
            "Jetson GPU by TensorRT or CUDA; the agent runs models on the CPU",
            (8, 32),
        ),
        Kind(GENERIC, "nothing is known of it", (8, 16)),
    )
}

NAME_PATTERNS: tuple[tuple[str, str], ...] = (
    (r"raspberry-pi-(5|500|compute-module-5)", "pi5"),
    (r"raspberry-pi-(4|400|compute-module-4)", "pi4"),
    (r"raspberry-pi-(3|zero-2|compute-module-3)", "pi3"),
    (r"(^|-)pi-?5", "pi5"),
    (r"(^|-)pi-?4", "pi4"),
    (r"(^|-)pi-?3", "pi3"),
    (r"orin", "orin-cpu"),
    (r"jetson-nano", "pi4"),  # Cortex-A57: as A72, no dot product, no float16
    (r"vnni|sapphire|icelake|ice-lake|(epyc|ryzen).*(zen4|zen5|9[0-9]{2}4)", "x86-vnni"),
    (r"avx2", "x86-avx2"),
)
"""Agents name a class by the board's device tree, such as raspberry-pi-4-model-b-rev-1-4-t4, and on a
PC by vendor and product, which say nothing of the CPU."""


@dataclass(frozen=True)
class DeviceKind:
    """Which kind a class is taken for, and how that is known."""

    kind: Kind
    reason: str


def kind_of_class(device_class: str) -> DeviceKind:
    """What a class's name says about its CPU; nothing, if it says nothing."""
    if device_class in KINDS:
        return DeviceKind(KINDS[device_class], "given as a kind")
    for pattern, name in NAME_PATTERNS:
        if re.search(pattern, device_class):
            return DeviceKind(KINDS[name], f"the name '{device_class}' says so")
    known = ", ".join(name for name in KINDS if name != GENERIC)
    return DeviceKind(
        KINDS[GENERIC],
        f"class '{device_class}' says nothing about its CPU, so the generic prior ranks; known kinds "
        f"are {known}, and 'host' for this machine",
    )


def kind_of_cpu(cpuinfo: str) -> DeviceKind:
    """What the flags in /proc/cpuinfo say.

    Args:
        cpuinfo: Its text.
    """
    flags = set(re.findall(r"[a-z0-9_]+", " ".join(_fields(cpuinfo, "flags"))))
    features = set(re.findall(r"[a-z0-9_]+", " ".join(_fields(cpuinfo, "Features"))))
    if flags & {"avx512_vnni", "avx_vnni", "amx_int8"}:
        return DeviceKind(KINDS["x86-vnni"], "this machine's CPU has VNNI")
    if "avx2" in flags:
        return DeviceKind(KINDS["x86-avx2"], "this machine's CPU has AVX2 and no VNNI")
    if "asimddp" in features:
        return DeviceKind(KINDS["pi5"], "this machine's CPU has the dot product")
    if "asimd" in features:
        return DeviceKind(KINDS["pi4"], "this machine's CPU has no dot product")
    return DeviceKind(KINDS[GENERIC], "this machine's CPU is unknown")


def _fields(text: str, name: str) -> list[str]:
    return re.findall(rf"^{name}\s*:(.*)$", text, re.MULTILINE)[:1]
