"""Trials: measuring an artifact without activating it. They change nothing but the payload cache.

Nothing runs that its owner did not sign: a trial's manifest is verified like a deployment's. A
trial is not journalled: the control plane asks again at the next birth, and a measurement that was
interrupted is worth nothing anyway.
"""

from __future__ import annotations

import logging
import uuid
from collections import OrderedDict

from trimtab_agent.journal import Journal
from trimtab_agent.measure.jobs import Job, JobKind, JobResult
from trimtab_agent.records import report_id_for
from trimtab_agent.tools import Tools, subject_of
from trimtab_protocol.errors import ErrorCode, RejectedError, TrimtabError
from trimtab_protocol.manifest import Manifest
from trimtab_protocol.messages import Ask, TrialReport
from trimtab_protocol.signing import read_manifest, verify_manifest

log = logging.getLogger(__name__)

MAX_WAITING = 100
ANY_VERSION = 0


class Trials:
    """The queue of trials; the first is the one that runs.

    Args:
        tools: The agent's parts.
        journal: Asked which payloads deployments still need.
        max_payload_cache_bytes: What may stay on disk of payloads that nothing uses.
    """

    def __init__(self, tools: Tools, journal: Journal, max_payload_cache_bytes: int) -> None:
        self._tools = tools
        self._journal = journal
        self._max_payload_cache_bytes = max_payload_cache_bytes
        self._waiting: OrderedDict[str, Ask] = OrderedDict()

    def take(self, ask: Ask) -> None:
        """Queue a trial; one that is queued or running already is passed over."""
        if ask.trial_id in self._waiting:
            return
        if len(self._waiting) >= MAX_WAITING:
            error = RejectedError(
                f"{MAX_WAITING} trials are waiting", code=ErrorCode.TRANSIENT_BUSY
            )
            self._report(ask, JobResult(job_id="", error_code=error.code, detail=error.message))
            return
        self._waiting[ask.trial_id] = ask

    def work(self) -> None:
        """Start the next trial if the bench is free."""
        while self._waiting and self._tools.bench.owner is None:
            trial_id, ask = next(iter(self._waiting.items()))
            self._tools.bench.claim(_owner(trial_id))
            try:
                self._start(ask)
            except TrimtabError as error:
                self._fail(ask, error)

    def _start(self, ask: Ask) -> None:
        if self._tools.clock.now() > ask.expires_at:
            raise RejectedError("expired before it was begun", code=ErrorCode.REJECTED_EXPIRED)
        manifest = verify_manifest(ask.signed, self._tools.trusted_keys)
        self._tools.admit(manifest, ANY_VERSION, self._journal.in_flight_sha256())
        log.info("trial %s: %s", ask.trial_id, manifest.ref())
        if self._tools.store.has_payload(manifest.payload):
            self._run(ask, manifest)
            return
        self._tools.bench.fetch(
            manifest.payload,
            self._tools.window_settings(None),
            (lambda: self._on_fetched(ask), lambda error: self._fail(ask, error)),
            self._tools.clock.monotonic_s(),
        )

    def _on_fetched(self, ask: Ask) -> None:
        manifest = read_manifest(ask.signed)
        try:
            self._tools.store.seal_part(manifest.payload)
            self._run(ask, manifest)
        except TrimtabError as error:
            self._fail(ask, error)

    def _run(self, ask: Ask, manifest: Manifest) -> None:
        path = self._tools.store.adopt_part(manifest.payload)
        job = Job(
            job_id=uuid.uuid4().hex,
            kind=JobKind.MEASURE,
            subject=subject_of(manifest, str(path)),
            spec=ask.spec,
            settings=self._tools.settings,
        )
        self._tools.bench.run(job, lambda result: self._finish(ask, result))

    def _fail(self, ask: Ask, error: TrimtabError) -> None:
        log.warning("trial %s: [%s] %s", ask.trial_id, error.code.value, error)
        self._finish(ask, JobResult(job_id="", error_code=error.code, detail=error.message))

    def _finish(self, ask: Ask, result: JobResult) -> None:
        """Report, then forget, and give the bench back even if the disk refuses the report.

        Measuring it again on a full disk would end the same way; the control plane's own deadline
        ends a trial that was never answered.
        """
        try:
            self._report(ask, result)
        finally:
            self._waiting.pop(ask.trial_id, None)
            self._tools.bench.release(_owner(ask.trial_id))
        in_flight = self._journal.in_flight_sha256()
        self._tools.store.collect_payloads(self._max_payload_cache_bytes, in_flight)

    def _report(self, ask: Ask, result: JobResult) -> None:
        report = TrialReport(
            report_id=report_id_for(ask.trial_id, "trial"),
            sent_at=self._tools.clock.now(),
            trial_id=ask.trial_id,
            measurement=result.measurement,
            error_code=result.error_code,
            detail=result.detail,
        )
        self._tools.outbox.put(report)


def _owner(trial_id: str) -> str:
    return f"trial:{trial_id}"
