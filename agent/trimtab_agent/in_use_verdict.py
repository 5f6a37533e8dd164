"""Whether what is active proves itself in its applications: pure.

Rules, for each application by its own name; times are monotonic:
    1. An application is *watched* if it sent a heartbeat with the incumbent within
       `heartbeat_timeout_s` before the activation, or has sent one with the new file since.
    2. A watched application fell silent if for `heartbeat_timeout_s` it sent no heartbeat with the
       new file. The time counts from its newest one; before its first from the activation; after a
       start of the agent from that start, for nobody could be heard before. [P-5.14]
    3. Probation does not end before every watched application was heard with the new file, which by
       rule 2 takes at most `heartbeat_timeout_s`.
    4. An application that says more than `max_starts` times that it has loaded the new file is in a
       crash loop: the first time is the update itself. [P-5.9]
    5. An application is too slow if its p90 with the new file is surely more than
       `max_app_p90_ratio` times its own p90 with the incumbent. [P-5.15]
    6. An application that says nothing has no say: then only the agent's own checks count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trimtab_agent.in_use import Use
from trimtab_protocol.base import Identifier, WireModel
from trimtab_protocol.errors import ErrorCode, ModelError
from trimtab_protocol.messages import Policy

Uses = Mapping[str, Use]


class Known(WireModel):
    """What has to be known of an application over a restart of the agent.

    Args:
        is_watched: By rule 1.
        p90_high_ms: With the incumbent its p90 was surely not above; None for too few latencies.
    """

    application: Identifier
    is_watched: bool = False
    p90_high_ms: float | None = None


@dataclass(frozen=True)
class UseVerdict:
    """What the applications say.

    Args:
        error: Why the last good artifact has to come back; None while there is no reason.
        is_open: Whether somebody has still to be heard before probation may end.
    """

    error: ModelError | None = None
    is_open: bool = False


def know_before(uses: Uses, policy: Policy, now_s: float) -> tuple[Known, ...]:
    """What is known of the applications of the incumbent, just before it gives way."""
    return tuple(
        Known(
            application=application,
            is_watched=_is_beating(use, policy.heartbeat_timeout_s, now_s),
            p90_high_ms=use.p90_high_ms,
        )
        for application, use in sorted(uses.items())
    )


def know_since(known: Iterable[Known], uses: Uses) -> tuple[Known, ...]:
    """The same, with whoever sent a heartbeat with the new file."""
    rows = {row.application: row for row in known}
    for application, use in uses.items():
        if use.heartbeat_at_s is not None:
            row = rows.get(application, Known(application=application))
            rows[application] = row.model_copy(update={"is_watched": True})
    return tuple(rows[application] for application in sorted(rows))


def judge_use(
    known: Iterable[Known], uses: Uses, policy: Policy, *, since_s: float, now_s: float
) -> UseVerdict:
    """Judge the new file by what its applications say.

    Args:
        known: Of `know_before` and `know_since`.
        uses: What was said of the new file, by application.
        policy: Of the deployment.
        since_s: When the file became active, or the agent started if that was later.
        now_s: On the same monotonic clock.
    """
    rows = tuple(known)
    before_ms = {row.application: row.p90_high_ms for row in rows}
    for application, use in sorted(uses.items()):
        if use.starts > policy.max_starts:
            reason = f"{application} started {use.starts} times with the new model in probation"
            return UseVerdict(ModelError(reason, code=ErrorCode.MODEL_CRASH))
        slow = _slowness(use, before_ms.get(application), policy.max_app_p90_ratio)
        if slow is not None:
            reason = f"{application}: {slow}"
            return UseVerdict(ModelError(reason, code=ErrorCode.MODEL_SLOW_IN_USE))
    if policy.heartbeat_timeout_s is None:
        return UseVerdict()
    return _judge_silence(rows, uses, policy.heartbeat_timeout_s, since_s, now_s)


def _judge_silence(
    known: tuple[Known, ...], uses: Uses, timeout_s: float, since_s: float, now_s: float
) -> UseVerdict:
    is_open = False
    for row in known:
        if not row.is_watched:
            continue
        heard_s = uses.get(row.application, Use()).heartbeat_at_s
        silence_s = now_s - (heard_s if heard_s is not None else since_s)
        if silence_s >= timeout_s:
            last = "sent no heartbeat with the new model" if heard_s is None else "fell silent"
            reason = f"{row.application} {last}: {silence_s:.1f} s, {timeout_s:g} s are allowed"
            return UseVerdict(ModelError(reason, code=ErrorCode.MODEL_HEARTBEAT))
        is_open |= heard_s is None
    return UseVerdict(is_open=is_open)


def _slowness(use: Use, before_ms: float | None, max_ratio: float | None) -> str | None:
    if max_ratio is None or before_ms is None or use.p90_low_ms is None:
        return None
    if use.p90_low_ms <= max_ratio * before_ms:
        return None
    return (
        f"p90 of {use.inferences} inferences is at least {use.p90_low_ms:.4g} ms, with the incumbent "
        f"it was at most {before_ms:.4g} ms, and {max_ratio:g} times that is allowed"
    )


def _is_beating(use: Use, timeout_s: float | None, now_s: float) -> bool:
    heard_s = use.heartbeat_at_s
    return timeout_s is not None and heard_s is not None and now_s - heard_s < timeout_s
