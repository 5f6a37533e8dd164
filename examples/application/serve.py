"""An application on a device: it serves predictions over HTTP while its model is swapped under it.

    python serve.py --socket /run/trimtab/api.sock --model digits --port 8080
    curl -s localhost:8080 -d '{"inputs": {"x": [[1, 2, 3, 4]]}}'

What makes the swap safe:
    1. A request takes the current model once, and keeps it to its end.
    2. A new model is loaded and has computed something before the first request sees it. One that
       does not load changes nothing here; without a heartbeat with it the agent goes back.
    3. A heartbeat says that an inference went through just now. It is sent by the thread that made
       one, so an application that hangs in its model is silent.
    4. An agent that is away changes nothing: what is loaded goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy
import onnxruntime

from trimtab_agent.client import AgentUnreachable, Client, Latencies, LocalApiError, Model

log = logging.getLogger("application")


@dataclass(frozen=True)
class Loaded:
    """One model file in memory."""

    model: Model
    session: Any
    latencies: Latencies

    def infer(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Compute, and count how long it took."""
        types = {row.name: _dtype(row.type) for row in self.session.get_inputs()}
        began_s = time.perf_counter()
        arrays = {name: numpy.asarray(value, types.get(name)) for name, value in inputs.items()}
        outputs = self.session.run(None, arrays)
        self.latencies.add((time.perf_counter() - began_s) * 1000)
        names = [row.name for row in self.session.get_outputs()]
        return {name: value.tolist() for name, value in zip(names, outputs, strict=True)}

    def check(self) -> None:
        """Compute something, which is not counted."""
        feed = {
            row.name: numpy.zeros(
                [size if isinstance(size, int) else 1 for size in row.shape], _dtype(row.type)
            )
            for row in self.session.get_inputs()
        }
        self.session.run(None, feed)


class Application:
    """Holds the current model, and tells the agent how it does.

    Args:
        client: To the agent.
        name: The model's name.
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name
        self.current: Loaded | None = None

    def follow(self) -> None:
        """Load what is active, now and at every change; never returns."""
        for models in self._client.watch():
            model = models.get(self._name)
            known = self.current.model.sha256 if self.current is not None else None
            if model is not None and model.sha256 != known:
                try:
                    self._load(model)
                except Exception:  # whatever a model can do: the one that is loaded goes on
                    log.exception("version %d does not load", model.version)

    def beat(self, period_s: float) -> None:
        """Every so often try the model, and tell the agent; never returns."""
        while True:
            current = self.current
            if current is not None:
                try:
                    current.check()
                    self._client.heartbeat(self._name, current.model.sha256)
                    current.latencies.send()
                except (AgentUnreachable, LocalApiError) as error:
                    log.warning("%s", error)
                except Exception:
                    log.exception("version %d does not compute", current.model.version)
            time.sleep(period_s)

    def _load(self, model: Model) -> None:
        session = onnxruntime.InferenceSession(model.path, providers=["CPUExecutionProvider"])
        loaded = Loaded(model, session, Latencies(self._client, self._name, model.sha256))
        loaded.check()
        self.current = loaded  # requests that run keep the one that they began with
        log.info("version %d serves", model.version)
        try:
            self._client.started(self._name, model.sha256)
        except (AgentUnreachable, LocalApiError) as error:
            log.warning("%s", error)


class Handler(BaseHTTPRequestHandler):
    """POST {"inputs": {NAME: rows}} gives {"outputs": {NAME: rows}, "version": N}."""

    application: Application
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer one request."""
        current = self.application.current
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if current is None:
            self._answer(503, {"error": "no model is active yet"})
            return
        try:
            outputs = current.infer(json.loads(body)["inputs"])
        except Exception as error:  # noqa: BLE001 - a request can be wrong in every way that a runtime knows
            self._answer(400, {"error": str(error)})
            return
        self._answer(200, {"version": current.model.version, "outputs": outputs})

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base's name
        """Nothing for each request."""

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _dtype(name: str) -> str:
    """ONNX Runtime's "tensor(float)" as numpy calls it."""
    kind = name.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(kind, kind)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--socket", default="/run/trimtab/api.sock")
    parser.add_argument("--model", required=True, help="name of the model")
    parser.add_argument("--port", type=int, default=8080, help="0 for any, which is logged")
    parser.add_argument("--application", default="serve", help="its name, for the agent")
    parser.add_argument("--heartbeat-s", type=float, default=5.0, help="pause between two")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level="INFO", format="%(message)s")
    application = Application(Client(chosen.socket, chosen.application), chosen.model)
    Handler.application = application
    server = ThreadingHTTPServer(("127.0.0.1", chosen.port), Handler)
    log.info("port %d", server.server_address[1])
    threading.Thread(target=application.follow, daemon=True).start()
    threading.Thread(target=application.beat, args=(chosen.heartbeat_s,), daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
