"""For applications: which model to use, and telling the agent how it does. Standard library only.

    client = Client("/run/trimtab/api.sock", "camera")
    model = client.model("digits")              # .path, .sha256, .version, .runtime
    with client.hold("digits", minutes=5): ...  # no update within
    for models in client.watch(): ...           # once now, and at every change
    latencies = Latencies(client, "digits", model.sha256)
    latencies.add(12.5); latencies.send()       # now and then
    client.started("digits", model.sha256)      # after each load
    client.heartbeat("digits", model.sha256)    # False: another model is active, load that

Every method raises `LocalApiError` if the agent refuses, and `AgentUnreachable` if it is not there.
An agent that is away never has to stop an application: its model files stay where they are.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from trimtab_agent.local.histogram import Histogram

DEFAULT_SOCKET = "/run/trimtab/api.sock"
RETRY_S = 1.0


class AgentUnreachable(Exception):  # noqa: N818 - a state of the world, not a fault
    """No agent answers on the socket. Go on with the model that is loaded, and try again."""


class LocalApiError(Exception):
    """The agent refused.

    Args:
        status: HTTP status.
        code: Stable dotted code, such as "protocol.unknown".
        detail: The sentence for a person.
    """

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"[{code}] {detail}")
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Model:
    """The active model of a name.

    Args:
        path: This very file; it never changes. It may be gone when another version is committed, or
            after this one was gone back from.
        stable_path: Leads to whatever is active when it is opened.
    """

    name: str
    version: int
    sha256: str
    runtime: str
    path: str
    stable_path: str


class Client:
    """Talks to the agent of this device. Safe for threads: each request has its own connection.

    Args:
        path: The agent's socket.
        application: A name for the process that asks: another one for each that runs at the same
            time, and the same over its restarts, or a restart is taken for a silence.
        timeout_s: For each answer.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = DEFAULT_SOCKET,
        application: str = "anybody",
        timeout_s: float = 5,
    ) -> None:
        self._path = os.fspath(path)
        self._application = application
        self._timeout_s = timeout_s

    def models(self) -> dict[str, Model]:
        """Every name with an active model."""
        return _read_models(self._ask("GET", "/v1/models"))

    def model(self, name: str) -> Model | None:
        """The active model of a name; None if no version is active yet."""
        return _read_model(self._ask("GET", f"/v1/models/{quote(name, safe='')}"))

    def watch(self, wait_s: float = 30) -> Iterator[dict[str, Model]]:
        """The models now, and again at every change; while the agent is away it is tried again."""
        change = 0
        while True:
            query = urlencode({"since": change, "timeout_s": wait_s})
            try:
                found = self._ask("GET", f"/v1/changes?{query}", extra_s=wait_s)
            except AgentUnreachable:
                time.sleep(RETRY_S)
                continue
            except LocalApiError as error:
                if error.code != "transient.busy":
                    raise
                time.sleep(RETRY_S)
                continue
            if found["change"] != change:
                change = found["change"]
                yield _read_models(found)

    @contextlib.contextmanager
    def hold(self, name: str, minutes: float) -> Iterator[float]:
        """Hold the updates of a name within a block; gives for how many seconds it holds at most."""
        at = f"/v1/models/{quote(name, safe='')}/hold"
        holder = f"{self._application[:60]}-{uuid.uuid4().hex[:8]}"
        found = self._ask("PUT", at, {"minutes": minutes, "holder": holder})
        try:
            yield float(found["held_for_s"])
        finally:
            with contextlib.suppress(AgentUnreachable, LocalApiError):  # it ends by itself
                self._ask("DELETE", f"{at}?{urlencode({'holder': holder})}")

    def started(self, name: str, sha256: str) -> bool:
        """Say that a file was loaded; gives whether it is the active one."""
        return self._say(name, "started", {"sha256": sha256})

    def heartbeat(self, name: str, sha256: str) -> bool:
        """Say that it works; gives whether the file is the active one."""
        return self._say(name, "heartbeat", {"sha256": sha256})

    def send_latencies(self, name: str, sha256: str, buckets: dict[int, int]) -> bool:
        """Report latencies by bucket; gives whether the file is the active one."""
        return self._say(name, "latencies", {"sha256": sha256, "buckets": buckets})

    def _say(self, name: str, what: str, body: dict[str, Any]) -> bool:
        try:
            body["application"] = self._application
            found = self._ask("POST", f"/v1/models/{quote(name, safe='')}/{what}", body)
        except LocalApiError as error:
            if error.code == "protocol.conflict":
                return False  # the name has long gone on to other files
            raise
        return bool(found["is_active"])

    def _ask(self, method: str, target: str, body: Any = None, extra_s: float = 0) -> Any:
        connection = _UnixConnection(self._path, self._timeout_s + extra_s)
        content = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, target, content)
            answer = connection.getresponse()
            found = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise AgentUnreachable(f"no agent answers on {self._path}: {error}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise LocalApiError(answer.status, found.get("code", ""), found.get("detail", ""))
        return found


class Latencies:
    """Collects the latencies of one model file, and sends them in one small message.

    Args:
        client: To send with.
        name, sha256: Whose they are.
    """

    def __init__(self, client: Client, name: str, sha256: str) -> None:
        self._client = client
        self._name = name
        self._sha256 = sha256
        self._lock = threading.Lock()
        self._histogram = Histogram()

    def add(self, latency_ms: float) -> None:
        """Count one latency, in milliseconds."""
        with self._lock:
            self._histogram.add([latency_ms])

    def send(self) -> None:
        """Send what was collected; if that fails it is kept for the next time."""
        with self._lock:
            buckets = self._histogram.take()
        if not buckets:
            return
        try:
            self._client.send_latencies(self._name, self._sha256, buckets)
        except (AgentUnreachable, LocalApiError):
            with self._lock:
                self._histogram.merge(buckets)
            raise


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _read_models(found: Any) -> dict[str, Model]:
    models = [_read_model(row) for row in found["models"]]
    return {model.name: model for model in models if model is not None}


def _read_model(row: Any) -> Model | None:
    active = row["active"]
    if active is None:
        return None
    return Model(
        name=row["name"],
        version=active["version"],
        sha256=active["sha256"],
        runtime=active["runtime"],
        path=active["slot_path"],
        stable_path=active["path"],
    )
