"""The HTTP API from the client's side: what the commands speak.

Rules:
    1. A control plane that cannot be reached is tried again a few times, and that is said.
    2. A request that may have been carried out is not repeated, unless repeating is harmless.
    3. A Problem becomes the error of its code; nothing of httpx leaves this module.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from trimtab_protocol.api import (
    API_PREFIX,
    Artifact,
    Device,
    DeviceCredentials,
    DeviceSpec,
    Problem,
    Trial,
    TrialSpec,
)
from trimtab_protocol.base import WireModel
from trimtab_protocol.errors import ErrorCode, TransientError, TrimtabError, error_from_code
from trimtab_protocol.manifest import SignedManifest
from trimtab_protocol.rollout import Rollout, RolloutSpec

RETRY_DELAYS_S = (0.2, 0.5, 1.0)
TIMEOUT_S = 30.0
PIECE_BYTES = 1024 * 1024
ResultT = TypeVar("ResultT")


class Client:
    """Speaks with one control plane.

    Args:
        url: Such as `http://127.0.0.1:8080`.
        token: The administrator's.
        say: Told about repeated attempts.
        transport: For tests; None for the network.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        say: Callable[[str], None],
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._say = say
        self._http = httpx.Client(
            base_url=self._url + API_PREFIX,
            headers={"Authorization": f"Bearer {token}"},
            timeout=TIMEOUT_S,
            transport=transport,
        )

    def put_payload(self, sha256: str, path: Path) -> None:
        """Upload a model file."""
        self._send("PUT", f"/payloads/{sha256}", is_repeatable=True, content_of=path)

    def push_artifact(self, signed: SignedManifest) -> Artifact:
        """Register an artifact whose payload is there."""
        return self._call("POST", "/artifacts", Artifact, body=signed, is_repeatable=True)

    def artifacts(self) -> list[Artifact]:
        """Every artifact."""
        return self._call("GET", "/artifacts", list[Artifact])

    def artifact(self, name: str, version: int) -> Artifact:
        """One artifact."""
        return self._call("GET", f"/artifacts/{name}/{version}", Artifact)

    def add_device(self, spec: DeviceSpec) -> DeviceCredentials:
        """Make a device known."""
        return self._call("POST", "/devices", DeviceCredentials, body=spec)

    def devices(self) -> list[Device]:
        """Every device."""
        return self._call("GET", "/devices", list[Device])

    def device(self, device: str) -> Device:
        """One device."""
        return self._call("GET", f"/devices/{device}", Device)

    def create_trial(self, spec: TrialSpec) -> Trial:
        """Ask for a measurement."""
        return self._call("POST", "/trials", Trial, body=spec)

    def trial(self, trial_id: str, wait_s: float = 0.0) -> Trial:
        """One trial; waits for its end at most `wait_s`."""
        return self._call("GET", f"/trials/{trial_id}?wait_s={wait_s:g}", Trial, wait_s=wait_s)

    def create_rollout(self, spec: RolloutSpec) -> Rollout:
        """Begin a rollout."""
        return self._call("POST", "/rollouts", Rollout, body=spec)

    def rollouts(self) -> list[Rollout]:
        """Every rollout, without its devices."""
        return self._call("GET", "/rollouts", list[Rollout])

    def rollout(self, rollout_id: str, wait_s: float = 0.0) -> Rollout:
        """One rollout; waits for its end at most `wait_s`."""
        path = f"/rollouts/{rollout_id}?wait_s={wait_s:g}"
        return self._call("GET", path, Rollout, wait_s=wait_s)

    def abort_rollout(self, rollout_id: str) -> Rollout:
        """End a rollout."""
        return self._call("POST", f"/rollouts/{rollout_id}/abort", Rollout, is_repeatable=True)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _call(
        self,
        method: str,
        path: str,
        expected: type[ResultT],
        *,
        body: WireModel | None = None,
        is_repeatable: bool = False,
        wait_s: float = 0.0,
    ) -> ResultT:
        content = None if body is None else body.model_dump_json(exclude_none=True)
        repeatable = is_repeatable or method == "GET"
        answer = self._send(method, path, content=content, is_repeatable=repeatable, wait_s=wait_s)
        try:
            return TypeAdapter(expected).validate_json(answer.content)
        except ValidationError as error:
            raise TransientError(
                f"{self._url} does not answer like a control plane",
                code=ErrorCode.TRANSIENT_CONTROL_PLANE,
            ) from error

    def _send(
        self,
        method: str,
        path: str,
        *,
        is_repeatable: bool,
        content: str | None = None,
        content_of: Path | None = None,
        wait_s: float = 0.0,
    ) -> httpx.Response:
        for delay_s in (*RETRY_DELAYS_S, None):
            try:
                answer = self._http.request(
                    method,
                    path,
                    content=content if content_of is None else _pieces(content_of),
                    headers={"Content-Type": "application/json"} if content is not None else {},
                    timeout=TIMEOUT_S + wait_s,
                )
            except httpx.HTTPError as error:
                has_reached = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if delay_s is None or (has_reached and not is_repeatable):
                    raise TransientError(
                        f"the control plane at {self._url} cannot be reached: "
                        f"{error or type(error).__name__}",
                        code=ErrorCode.TRANSIENT_CONTROL_PLANE,
                    ) from error
                self._say(f"{self._url} cannot be reached, trying again in {delay_s:g} s")
                time.sleep(delay_s)
                continue
            if answer.is_success:
                return answer
            raise self._problem(answer)
        raise AssertionError  # the last delay is None

    def _problem(self, answer: httpx.Response) -> TrimtabError:
        try:
            problem = Problem.model_validate_json(answer.content)
        except ValidationError:
            return TransientError(
                f"{self._url} answers {answer.status_code} without a reason: is it a control plane?",
                code=ErrorCode.TRANSIENT_CONTROL_PLANE,
            )
        return error_from_code(problem.code, problem.detail)


def _pieces(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
