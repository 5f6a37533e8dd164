"""Whether a device may take an artifact at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from support.factories import a_manifest
from trimtab_agent.admission import DeviceFacts, admit
from trimtab_protocol.errors import ErrorCode, RejectedError, TrimtabError, TrustError
from trimtab_protocol.manifest import Manifest, RuntimeName

FACTS = DeviceFacts(
    device_class="pi4",
    runtimes={RuntimeName.ONNXRUNTIME: "1.23.1"},
    memory_total_bytes=1000,
    free_disk_bytes=5000,
    highest_version=3,
)


def a_demanding_manifest(
    *, version: int = 4, classes: tuple[str, ...] = (), **requirements: Any
) -> Manifest:
    manifest = a_manifest(version=version, device_classes=classes)
    return manifest.model_copy(
        update={"requirements": manifest.requirements.model_copy(update=requirements)}
    )


ADMITTED: list[tuple[str, dict[str, Any], dict[str, Any], int]] = [
    ("a newer version", {"version": 4}, {}, 0),
    ("the committed version again", {"version": 3}, {}, 0),
    ("no class named", {"classes": ()}, {}, 0),
    ("its class among others", {"classes": ("orin", "pi4")}, {}, 0),
    ("exactly the runtime asked for", {"min_runtime_version": "1.23.1"}, {}, 0),
    ("an older runtime asked for", {"min_runtime_version": "1.9"}, {}, 0),
    ("fewer parts in what is asked for", {"min_runtime_version": "1.23"}, {}, 0),
    ("exactly the memory asked for", {"min_memory_bytes": 1000}, {}, 0),
    ("memory unknown", {"min_memory_bytes": 10**12}, {"memory_total_bytes": None}, 0),
    ("exactly the room needed", {}, {}, 5000),
]


@pytest.mark.parametrize(
    ("asks", "device", "needed_bytes"),
    [row[1:] for row in ADMITTED],
    ids=[row[0] for row in ADMITTED],
)
def test_what_can_run_here_is_admitted(
    asks: dict[str, Any], device: dict[str, Any], needed_bytes: int
) -> None:
    admit(a_demanding_manifest(**asks), replace(FACTS, **device), needed_bytes)


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], int, ErrorCode, str]] = [
    ("older than committed", {"version": 2}, {}, 0, ErrorCode.TRUST_VERSION, "version 3"),
    (
        "another class",
        {"classes": ("orin", "pi5")},
        {},
        0,
        ErrorCode.REJECTED_DEVICE_CLASS,
        "orin, pi5.*pi4",
    ),
    ("no runtime", {}, {"runtimes": {}}, 0, ErrorCode.REJECTED_RUNTIME, "not installed"),
    (
        "a runtime too old in the last part",
        {"min_runtime_version": "1.23.2"},
        {},
        0,
        ErrorCode.REJECTED_RUNTIME,
        "1.23.2 or newer, found 1.23.1",
    ),
    (
        "a runtime too old by number, not by letters",
        {"min_runtime_version": "1.100"},
        {},
        0,
        ErrorCode.REJECTED_RUNTIME,
        "found 1.23.1",
    ),
    ("memory", {"min_memory_bytes": 1001}, {}, 0, ErrorCode.REJECTED_MEMORY, "1001.*1000"),
    ("disk", {}, {}, 5001, ErrorCode.REJECTED_DISK, "5001.*5000"),
]


@pytest.mark.parametrize(
    ("asks", "device", "needed_bytes", "code", "says"),
    [row[1:] for row in REFUSED],
    ids=[row[0] for row in REFUSED],
)
def test_what_cannot_run_here_is_refused_with_what_was_expected_and_found(
    asks: dict[str, Any], device: dict[str, Any], needed_bytes: int, code: ErrorCode, says: str
) -> None:
    with pytest.raises(TrimtabError, match=says) as caught:
        admit(a_demanding_manifest(**asks), replace(FACTS, **device), needed_bytes)
    assert caught.value.code is code
    is_trust = code is ErrorCode.TRUST_VERSION
    assert isinstance(caught.value, TrustError if is_trust else RejectedError)


@pytest.mark.parametrize(
    ("minimum", "found", "is_good"),
    [
        ("1.23.0", "1.23", True),
        ("1.23", "1.23.0", True),
        ("2", "1.99.99", False),
        ("2", "2.0.0", True),
        ("1.24.0", "1.24.0rc1", True),
        ("2.1.0", "2.1.0+nv24.08", True),
        ("10.0", "9.9", False),
    ],
)
def test_versions_are_compared_as_numbers_with_missing_parts_as_zero(
    minimum: str, found: str, is_good: bool
) -> None:
    manifest = a_demanding_manifest(min_runtime_version=minimum)
    facts = replace(FACTS, runtimes={RuntimeName.ONNXRUNTIME: found})
    if is_good:
        admit(manifest, facts, 0)
        return
    with pytest.raises(RejectedError):
        admit(manifest, facts, 0)


def test_trust_comes_before_everything_else() -> None:
    manifest = a_demanding_manifest(version=1, classes=("orin",))
    with pytest.raises(TrustError):
        admit(manifest, replace(FACTS, runtimes={}), 10**9)
