"""The control plane over HTTP, as the compressor needs it.

Rules:
    1. A connection that fails is tried again with growing pauses, and says so each time. A request
       that creates something is tried again only if it surely was not received.
    2. An error answer is a Problem; its code becomes the right branch of the error tree.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from trimtab_protocol.api import API_PREFIX, Artifact, Problem, Trial, TrialSpec, TrialState
from trimtab_protocol.base import WireModel, parse_wire
from trimtab_protocol.errors import (
    ErrorCode,
    ProtocolError,
    TransientError,
    TrimtabError,
    error_from_code,
)
from trimtab_protocol.manifest import SignedManifest
from trimtab_protocol.rollout import Rollout, RolloutSpec, RolloutState

ModelT = TypeVar("ModelT", bound=WireModel)

PAUSES_S = (0.5, 1.0, 2.0, 4.0)
LONG_POLL_S = 25.0
REQUEST_S = 60.0
GRACE_S = 120.0
"""How much longer than its expiry a trial is waited for."""

_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_BUSY_STATUSES = {502, 503, 504}
_ENDED_TRIALS = {TrialState.MEASURED, TrialState.FAILED, TrialState.EXPIRED}
_ARTIFACTS = TypeAdapter(list[Artifact])


class ControlPlane(Protocol):
    """What the search needs of a control plane."""

    def list_artifacts(self, name: str) -> list[Artifact]:
        """All versions of a name."""

    def push(self, signed: SignedManifest, payload: bytes) -> Artifact:
        """Make an artifact known."""

    def run_trial(self, spec: TrialSpec) -> Trial:
        """Ask for a measurement and wait until it has ended."""

    def run_rollout(self, spec: RolloutSpec, max_wait_s: float) -> Rollout:
        """Start a rollout and wait until it has ended."""


class HttpControlPlane:
    """The real one.

    Args:
        url: Such as http://host:8080, without the API prefix.
        token: Bearer token.
        report: Told each retry in one line.
        transport: For tests.
        sleep: For tests.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        report: Callable[[str], None],
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = url.rstrip("/")
        self._report = report
        self._sleep = sleep
        self._http = httpx.Client(
            base_url=self._url + API_PREFIX,
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(REQUEST_S, connect=10.0),
            transport=transport,
        )

    def __enter__(self) -> HttpControlPlane:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def list_artifacts(self, name: str) -> list[Artifact]:
        """All versions of a name, oldest first.

        Raises:
            TransientError: The control plane cannot be reached.
        """
        body = self._request("GET", "/artifacts", params={"name": name})
        try:
            rows = _ARTIFACTS.validate_json(body)
        except ValidationError as error:
            raise ProtocolError(f"{self._url} answered with no list of artifacts") from error
        return sorted(
            (row for row in rows if row.ref.name == name), key=lambda row: row.ref.version
        )

    def push(self, signed: SignedManifest, payload: bytes) -> Artifact:
        """Store the payload, then the manifest.

        Raises:
            ProtocolError: `protocol.conflict`: this version exists with other content.
            TransientError: The control plane cannot be reached.
        """
        from trimtab_protocol.signing import read_manifest  # noqa: PLC0415 - keeps start fast

        sha256 = read_manifest(signed).payload.sha256
        self._request("PUT", f"/payloads/{sha256}", content=payload)
        return self._create("/artifacts", signed, Artifact)

    def run_trial(self, spec: TrialSpec) -> Trial:
        """Ask for one measurement and wait until it has ended, one way or the other.

        Raises:
            TransientError: The control plane cannot be reached, or never ends the trial.
        """
        trial = self._create("/trials", spec, Trial)
        deadline = time.monotonic() + spec.expires_s + GRACE_S
        while trial.state not in _ENDED_TRIALS:
            self._check_deadline(deadline, f"trial {trial.trial_id}")
            trial = self._wait_for(f"/trials/{trial.trial_id}", Trial)
            if trial.state is TrialState.QUEUED:
                self._report(
                    f"trial {trial.trial_id} still waits for a free device of class "
                    f"{spec.device_class}; is one online?"
                )
        return trial

    def run_rollout(self, spec: RolloutSpec, max_wait_s: float) -> Rollout:
        """Start a rollout and wait until it has ended, one way or the other.

        Raises:
            TransientError: The control plane cannot be reached, or the time is over.
        """
        rollout = self._create("/rollouts", spec, Rollout)
        deadline = time.monotonic() + max_wait_s
        while rollout.state is RolloutState.RUNNING:
            self._check_deadline(deadline, f"rollout {rollout.rollout_id}")
            rollout = self._wait_for(f"/rollouts/{rollout.rollout_id}", Rollout)
        return rollout

    def _check_deadline(self, deadline: float, what: str) -> None:
        if time.monotonic() > deadline:
            raise TransientError(
                f"{what} at {self._url} has not ended in time; look at the control plane",
                code=ErrorCode.TRANSIENT_CONTROL_PLANE,
            )

    def _create(self, path: str, body: WireModel, answer: type[ModelT]) -> ModelT:
        content = body.model_dump_json(exclude_none=True).encode()
        return parse_wire(answer, self._request("POST", path, content=content), what=path)

    def _wait_for(self, path: str, answer: type[ModelT]) -> ModelT:
        body = self._request("GET", path, params={"wait_s": str(LONG_POLL_S)})
        return parse_wire(answer, body, what=path)

    def _request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        params: dict[str, str] | None = None,
    ) -> bytes:
        kind = "application/json" if method == "POST" else "application/octet-stream"
        headers = {"Content-Type": kind} if content is not None else {}
        for pause_s in (*PAUSES_S, None):
            try:
                found = self._http.request(
                    method, path, content=content, params=params, headers=headers
                )
            except httpx.TransportError as error:
                self._pause(pause_s, _describe(error), may_repeat(method, error))
                continue
            except httpx.InvalidURL as error:
                raise self._unreachable(str(error)) from error
            if found.status_code in _BUSY_STATUSES and may_repeat(method, None):
                self._pause(pause_s, f"it answers {found.status_code}", True)
                continue
            if found.is_success:
                return found.content
            raise self._problem(found)
        raise AssertionError("unreachable: the last pause raises")

    def _pause(self, pause_s: float | None, reason: str, may: bool) -> None:
        if pause_s is None or not may:
            raise self._unreachable(reason)
        self._report(f"{self._url} cannot be reached ({reason}); trying again in {pause_s:g} s")
        self._sleep(pause_s)

    def _unreachable(self, reason: str) -> TransientError:
        return TransientError(
            f"the control plane at {self._url} cannot be reached: {reason}; check the address "
            "(--url or TRIMTAB_URL) and that it is running",
            code=ErrorCode.TRANSIENT_CONTROL_PLANE,
        )

    def _problem(self, found: httpx.Response) -> TrimtabError:
        try:
            problem = Problem.model_validate_json(found.content)
        except ValidationError:
            return ProtocolError(
                f"{self._url} answered {found.status_code} without a reason; is it a Trimtab "
                "control plane?"
            )
        return error_from_code(problem.code, problem.detail or problem.title)


def may_repeat(method: str, error: httpx.TransportError | None) -> bool:
    """Whether a request may be sent again without doing something twice."""
    return method != "POST" or isinstance(error, _UNSENT)


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__
