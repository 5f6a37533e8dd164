"""Turning what was found into the result, and saying what of it does not hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from result import CandidateOnClass, DemoCandidate, DemoResult, RolloutOutcome

from trimtab_compressor.fit_report import CandidateReport, FitReport
from trimtab_protocol.manifest import ArtifactRef, ModelFormat
from trimtab_protocol.measurement import Measurement
from trimtab_protocol.rollout import RolloutState

MIN_FP32_ACCURACY = 0.985
MIN_CANDIDATES = 7
MAX_SIZE_SHARE = 1 / 8
MAX_DROP = 0.005
REQUIRED = {
    "dynamic": ("dynamic",),
    "static symmetric": ("static", "_sym"),
    "static asymmetric": ("static", "_asym"),
    "pruned and static": ("prune", "static"),
    "distilled": ("distill",),
}


def summarise(
    row: CandidateReport, fp32: Mapping[str, Measurement], chosen: CandidateReport | None
) -> DemoCandidate:
    """One candidate with its ratio to fp32 on each class."""
    return DemoCandidate(
        recipe=row.recipe,
        format=row.format,
        artifact=row.artifact,
        size_bytes=row.size_bytes,
        quality=row.quality,
        is_chosen=chosen is not None and row.artifact == chosen.artifact,
        classes=tuple(
            CandidateOnClass(
                device_class=one.device_class,
                verdict=one.verdict,
                p50_ratio_to_fp32=_ratio(one.measurement, fp32.get(one.device_class)),
                measurement=one.measurement,
                error_code=one.error_code,
            )
            for one in row.classes
        ),
    )


def list_failures(result: DemoResult) -> tuple[str, ...]:
    """What a person who reads the result should be told; empty if all is well."""
    return tuple(
        text
        for text in (
            *_judge_candidates(result),
            *_judge_chosen(result),
            *_judge_rollouts(result),
        )
        if text
    )


def fp32_by_class(report: FitReport) -> dict[str, Measurement]:
    """The fit's own measurements of the base."""
    return {
        row.device_class: row.measurement
        for row in report.base.classes
        if row.measurement is not None
    }


def _ratio(one: Measurement | None, other: Measurement | None) -> float | None:
    if one is None or other is None:
        return None
    return one.latency.p50_ms.known() / other.latency.p50_ms.known()


def _measured(result: DemoResult) -> list[DemoCandidate]:
    wanted = set(result.device_classes)
    return [
        row
        for row in result.candidates
        if {one.device_class for one in row.classes if one.measurement is not None} == wanted
    ]


def _judge_candidates(result: DemoResult) -> Iterable[str]:
    quality = result.fp32.quality
    accuracy = quality.exact if quality is not None and quality.exact is not None else 0.0
    if accuracy < MIN_FP32_ACCURACY:
        yield f"fp32 accuracy is {accuracy:.4f}, expected at least {MIN_FP32_ACCURACY}"
    measured = _measured(result)
    if len(measured) < MIN_CANDIDATES:
        yield f"{len(measured)} candidates were measured on every class, expected {MIN_CANDIDATES}"
    if {row.format for row in measured} != set(ModelFormat):
        yield "not every format was measured"
    for what, parts in REQUIRED.items():
        if not any(all(part in row.recipe for part in parts) for row in measured):
            yield f"no {what} candidate was measured"


def _judge_chosen(result: DemoResult) -> Iterable[str]:
    chosen, fp32_bytes = result.chosen, result.fp32.size_bytes
    if chosen is None or chosen.size_bytes is None or fp32_bytes is None:
        yield "nothing was chosen"
        return
    if chosen.size_bytes > fp32_bytes * MAX_SIZE_SHARE:
        yield f"the chosen one has {chosen.size_bytes} bytes, fp32 has {fp32_bytes}"
    drop = chosen.quality.drop() if chosen.quality is not None else None
    if drop is None or drop > MAX_DROP:
        yield f"the chosen one loses {drop} of accuracy"
    for one in chosen.classes:
        if one.verdict.outcome.value != "pass":
            yield f"the chosen one on {one.device_class}: {one.verdict.reason}"


def _judge_rollouts(result: DemoResult) -> Iterable[str]:
    chosen = result.chosen.artifact if result.chosen is not None else None
    for key in ("first", "chosen"):
        outcome = result.rollouts.get(key)
        if outcome is None or outcome.state is not RolloutState.COMMITTED:
            yield f"rollout {key}: {outcome.state.value if outcome else 'missing'}"
    for key, code in (("bad_golden", "model.golden"), ("bad_slower", "rejected.slower")):
        yield from _judge_refused(key, code, result.rollouts.get(key), chosen)


def _judge_refused(
    key: str, code: str, outcome: RolloutOutcome | None, chosen: ArtifactRef | None
) -> Iterable[str]:
    if outcome is None or outcome.state is not RolloutState.REFUSED:
        yield f"rollout {key}: {outcome.state.value if outcome else 'missing'}, expected refused"
        return
    if outcome.error_code is None or outcome.error_code.value != code:
        yield f"rollout {key} was refused with {outcome.error_code}, expected {code}"
    for row in outcome.devices:
        if row.active != chosen:
            yield f"after {key}, {row.device} runs {row.active} instead of {chosen}"
