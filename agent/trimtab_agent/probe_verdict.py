"""Whether a probed candidate may be activated: pure.

Rules:
    1. A child that failed says why; that is the verdict.
    2. A limit of the budget that is surely broken refuses; one that cannot be decided does not: the
       gate of the rollout, which sees all devices, decides then.
    3. A p90 surely above the allowed multiple of the incumbent's refuses.
"""

from __future__ import annotations

from trimtab_agent.measure.jobs import JobResult
from trimtab_protocol.budget import Outcome, judge
from trimtab_protocol.errors import (
    ErrorCode,
    ModelError,
    RejectedError,
    TrimtabError,
    error_from_code,
)
from trimtab_protocol.manifest import Manifest
from trimtab_protocol.messages import Policy


def refuse_probe(
    result: JobResult, manifest: Manifest, device_class: str, policy: Policy
) -> TrimtabError | None:
    """The reason to refuse a candidate, or None to go on."""
    if result.error_code is not None:
        return error_from_code(result.error_code, result.detail)
    if result.measurement is None:
        return ModelError("the child ended without a measurement", code=ErrorCode.MODEL_CRASH)
    drop = manifest.quality.drop() if manifest.quality is not None else None
    verdict = judge(manifest.budget_for(device_class), result.measurement.readings(drop))
    if verdict.outcome is Outcome.FAIL:
        return RejectedError(
            f"over the budget of class {device_class}: {verdict.reason}",
            code=ErrorCode.REJECTED_BUDGET,
        )
    return _refuse_slower(result, policy)


def _refuse_slower(result: JobResult, policy: Policy) -> TrimtabError | None:
    if result.comparison is None or policy.max_p90_ratio is None:
        return None
    ratio = result.comparison.p90_ratio
    if ratio.value is None or ratio.low_or_value() <= policy.max_p90_ratio:
        return None
    return RejectedError(
        f"p90 is {ratio.value:.2f} times that of {result.comparison.incumbent} here, "
        f"at most {policy.max_p90_ratio:.2f} is allowed",
        code=ErrorCode.REJECTED_SLOWER,
    )
