"""Fit: find the gentlest recipe that keeps the budget on every device class, by measuring.

Rules:
    1. The base is measured first, whatever its size.
    2. What the host can rule out (size, accuracy) is not measured, unless everything was asked for.
    3. Trials run one after the other, never two at once: classes may share a machine.
    4. An inconclusive verdict is measured again, at most MAX_TRIALS times; then it counts as not kept.
    5. A candidate that cannot be built or measured is an observation with its reason, not a crash.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from trimtab_compressor.build import Built
from trimtab_compressor.client import ControlPlane
from trimtab_compressor.evidence import Subject
from trimtab_compressor.fit_report import CandidateReport, ClassReport, FitReport
from trimtab_compressor.publish import ArtifactPlan, publish
from trimtab_compressor.recipes import BASE_RECIPE, Choice
from trimtab_compressor.search.ladder import LadderSearch
from trimtab_compressor.search.port import Search
from trimtab_compressor.verdicts import (
    MAX_TRIALS,
    combine_verdicts,
    is_worth_repeating,
    judge_measurement,
    judge_on_host,
)
from trimtab_protocol.api import Trial, TrialSpec
from trimtab_protocol.budget import Budget, Outcome, Verdict
from trimtab_protocol.errors import ModelError
from trimtab_protocol.manifest import ArtifactRef, ModelFormat, Quality
from trimtab_protocol.measurement import MeasureSpec
from trimtab_protocol.messages import Policy
from trimtab_protocol.rollout import Rollout, RolloutSpec

ROLLOUT_WAIT_S = 7200.0
TRIAL_WAIT_S = 600.0
"""How long a trial may wait for a free device, on top of the time that it may take."""


class Maker(Protocol):
    """What a fit needs of the builder."""

    def build(self, choice: Choice) -> Built:
        """Make one candidate; raises ModelError if it cannot be made."""

    def tools(self, model_format: ModelFormat) -> dict[str, str]:
        """Versions of the tools."""


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """What to fit.

    Args:
        choices: Candidates, gentlest first.
        budgets: One per device class; the keys are the classes.
        artifact: Name, key.
        measure: How much each trial measures.
        measures_all: Go on after the first that passed, also with what the host ruled out.
        rolls_out: Roll the chosen one out at the end.
        policy: Of the rollout.
    """

    choices: tuple[Choice, ...]
    budgets: dict[str, Budget]
    artifact: ArtifactPlan
    measure: MeasureSpec = field(default_factory=MeasureSpec)
    measures_all: bool = False
    rolls_out: bool = False
    policy: Policy = field(default_factory=Policy)

    def base(self) -> Choice:
        """The base, in the format that is preferred."""
        return Choice(BASE_RECIPE, self.choices[0].format)


class Fit:
    """One run of the loop.

    Args:
        plan: What to fit.
        subject: What is being compressed.
        maker: Builds candidates.
        plane: Measures them.
        report: Told each step in one line.
    """

    def __init__(
        self,
        plan: FitPlan,
        subject: Subject,
        maker: Maker,
        plane: ControlPlane,
        report: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._subject = subject
        self._maker = maker
        self._plane = plane
        self._report = report

    def run(self) -> FitReport:
        """Search, and roll out if asked to.

        Returns:
            The report; `chosen` is None if nothing keeps the budget.

        Raises:
            TransientError: The control plane cannot be reached.
        """
        started_at = time.time()
        self._plane.list_artifacts(self._plan.artifact.name)  # found wrong now, not after training
        base = self._try(self._plan.base(), is_base=True)
        candidates = self._search(base)
        chosen = next((row for row in candidates if row.outcome is Outcome.PASS), None)
        rollout = self._roll_out(chosen) if chosen is not None and self._plan.rolls_out else None
        return FitReport(
            name=self._plan.artifact.name,
            task=self._subject.name,
            device_classes=tuple(self._plan.budgets),
            budgets=self._plan.budgets,
            measure=self._plan.measure,
            base=base,
            candidates=tuple(candidates),
            chosen=chosen,
            rollout_id=rollout.rollout_id if rollout else None,
            rollout_state=rollout.state if rollout else None,
            rollout_reason=rollout.reason if rollout else "",
            started_at=started_at,
            finished_at=time.time(),
        )

    def _search(self, base: CandidateReport) -> list[CandidateReport]:
        search: Search = LadderSearch(self._plan.choices, stops_at_pass=not self._plan.measures_all)
        candidates: list[CandidateReport] = []
        while (choice := search.ask()) is not None:
            found = base if choice == self._plan.base() else self._try(choice, is_base=False)
            candidates.append(found)
            search.tell(choice, found.outcome)
        return candidates

    def _try(self, choice: Choice, *, is_base: bool) -> CandidateReport:
        """Build one candidate, judge it on the host, and measure it if that makes sense."""
        try:
            built = self._maker.build(choice)
            return self._judge_built(choice, built, is_base=is_base)
        except ModelError as error:
            self._report(f"{choice}: cannot be made: {error.message}")
            return CandidateReport(
                recipe=choice.recipe,
                format=choice.format,
                outcome=Outcome.FAIL,
                reason=f"[{error.code.value}] {error.message}",
            )

    def _judge_built(self, choice: Choice, built: Built, *, is_base: bool) -> CandidateReport:
        host = self._judge_on_host(built)
        rows: tuple[ClassReport, ...] = ()
        ref: ArtifactRef | None = None
        if host.outcome is not Outcome.FAIL or self._plan.measures_all or is_base:
            tools = self._maker.tools(choice.format)
            ref = publish(built, self._subject, tools, self._plan.artifact, self._plane)
            rows = self._measure(choice, ref, built.quality, is_base=is_base)
        outcome, reason = combine_verdicts(host, rows)
        self._report(f"{choice}: {outcome.value}: {reason}")
        return CandidateReport(
            recipe=choice.recipe,
            format=choice.format,
            artifact=ref,
            size_bytes=built.size_bytes,
            quality=built.quality,
            build_s=built.seconds,
            outcome=outcome,
            reason=reason,
            host_verdict=host,
            classes=rows,
        )

    def _judge_on_host(self, built: Built) -> Verdict:
        verdicts = [
            judge_on_host(budget, built.size_bytes, built.quality)
            for budget in self._plan.budgets.values()
        ]
        failed = [row for row in verdicts if row.outcome is Outcome.FAIL]
        return (failed or verdicts)[0]

    def _measure(
        self, choice: Choice, ref: ArtifactRef, quality: Quality, *, is_base: bool
    ) -> tuple[ClassReport, ...]:
        """Measure on each class in turn; stop at the first failure unless all is wanted."""
        rows: list[ClassReport] = []
        for device_class, budget in self._plan.budgets.items():
            self._report(f"{choice}: measure {ref} on {device_class}")
            rows.append(self._measure_on(device_class, budget, ref, quality))
            is_settled = rows[-1].verdict.outcome is not Outcome.PASS
            if is_settled and not (self._plan.measures_all or is_base):
                break
        return tuple(rows)

    def _measure_on(
        self, device_class: str, budget: Budget, ref: ArtifactRef, quality: Quality
    ) -> ClassReport:
        trial_ids: list[str] = []
        while True:
            trial = self._plane.run_trial(self._trial_spec(ref, device_class))
            trial_ids.append(trial.trial_id)
            if trial.measurement is None:
                return _failed(device_class, trial, trial_ids)
            verdict = judge_measurement(budget, trial.measurement, quality)
            again = is_worth_repeating(budget, verdict, trial.measurement)
            if not again or len(trial_ids) == MAX_TRIALS:
                break
            self._report(f"  inconclusive, measure again: {verdict.reason}")
        if verdict.outcome is Outcome.INCONCLUSIVE:
            reason = f"still inconclusive after {len(trial_ids)} trials: {verdict.reason}"
            verdict = Verdict(outcome=Outcome.INCONCLUSIVE, reason=reason)
        return ClassReport(
            device_class=device_class,
            verdict=verdict,
            measurement=trial.measurement,
            trials=len(trial_ids),
            trial_ids=tuple(trial_ids),
        )

    def _trial_spec(self, ref: ArtifactRef, device_class: str) -> TrialSpec:
        return TrialSpec(
            name=ref.name,
            version=ref.version,
            device_class=device_class,
            measure=self._plan.measure,
            expires_s=TRIAL_WAIT_S
            + self._plan.measure.processes * self._plan.measure.max_process_s,
        )

    def _roll_out(self, chosen: CandidateReport) -> Rollout:
        assert chosen.artifact is not None
        self._report(f"roll out {chosen.artifact}")
        spec = RolloutSpec(
            name=chosen.artifact.name,
            version=chosen.artifact.version,
            device_classes=tuple(self._plan.budgets),
            policy=self._plan.policy,
        )
        return self._plane.run_rollout(spec, ROLLOUT_WAIT_S)


def _failed(device_class: str, trial: Trial, trial_ids: list[str]) -> ClassReport:
    code = f"[{trial.error_code.value}] " if trial.error_code else ""
    reason = f"the trial ended as {trial.state.value}: {code}{trial.detail}".rstrip(": ")
    return ClassReport(
        device_class=device_class,
        verdict=Verdict(outcome=Outcome.INCONCLUSIVE, reason=reason),
        trials=len(trial_ids),
        trial_ids=tuple(trial_ids),
        error_code=trial.error_code,
        detail=trial.detail,
    )
