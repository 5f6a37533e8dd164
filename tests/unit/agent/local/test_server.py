"""The API over a real Unix socket."""

from __future__ import annotations

import json
import socket
import socketserver
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from support.local_views import SHA, a_view
from trimtab_agent.local import server as server_module
from trimtab_agent.local.board import MAX_WAITERS, Board
from trimtab_agent.local.histogram import bucket_of
from trimtab_agent.local.routes import Routes
from trimtab_agent.local.server import MAX_BODY_BYTES, MAX_CONNECTIONS, LocalServer
from trimtab_protocol.errors import ConfigError, ErrorCode

HOUR_S = 3600.0


class Connection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))


class Api:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "api.sock"
        self.board = Board(HOUR_S)
        self.board.publish({"digits": a_view(2)})
        self.server = LocalServer(self.path, 0o660, None, Routes(self.board, HOUR_S))
        self.server.start()

    def ask(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        connection = Connection(self.path)
        content = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request(method, target, content)
        answer = connection.getresponse()
        kind = "application/json" if answer.status == 200 else "application/problem+json"
        assert answer.headers["Content-Type"] == kind
        found = json.loads(answer.read() or b"null")
        connection.close()
        return answer.status, found

    def raw(self, content: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self.path))
            sock.sendall(content)
            found = b""
            while block := sock.recv(65536):
                found += block
            return found

    def close(self) -> None:
        self.board.close()
        self.server.stop()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = Api(tmp_path)
    yield made
    made.close()


def test_curl_sees_what_is_active_and_where(api: Api) -> None:
    done = subprocess.run(
        ["curl", "-sS", "--unix-socket", str(api.path), "http://localhost/v1/models"],
        capture_output=True, check=True, timeout=20,
    )  # fmt: skip
    (row,) = json.loads(done.stdout)["models"]
    assert row["name"] == "digits"
    assert row["active"]["version"] == 2
    assert row["active"]["sha256"] == SHA[2]
    assert row["active"]["path"] == "/state/models/digits/active/model.onnx"
    assert row["last_good"]["version"] == 1
    assert row["deployment"]["state"] == "committed"


def test_one_model_is_shown_as_in_the_list(api: Api) -> None:
    status, row = api.ask("GET", "/v1/models/digits")
    assert (status, row["active"]["artifact"]) == (200, "digits@2")
    assert row["held_for_s"] == 0
    assert row["applications"] == {}


def test_a_hold_is_set_shown_and_released(api: Api) -> None:
    body = {"minutes": 5, "holder": "camera"}
    status, found = api.ask("PUT", "/v1/models/digits/hold", body)
    assert (status, found) == (200, {"holder": "camera", "held_for_s": 300})
    assert 299 < api.ask("GET", "/v1/models/digits")[1]["held_for_s"] <= 300
    assert api.board.held_until_s("digits") is not None
    assert api.ask("DELETE", "/v1/models/digits/hold?holder=camera")[0] == 200
    assert api.board.held_until_s("digits") is None


def test_a_hold_without_a_holder_is_anybodys(api: Api) -> None:
    assert api.ask("PUT", "/v1/models/digits/hold", {"minutes": 1})[0] == 200
    assert api.ask("DELETE", "/v1/models/digits/hold")[0] == 200
    assert api.board.held_until_s("digits") is None


def test_start_heartbeat_and_latencies_reach_the_decisions(api: Api) -> None:
    at = "/v1/models/digits"
    assert api.ask("POST", f"{at}/started", {"sha256": SHA[2]}) == (200, {"is_active": True})
    assert api.ask("POST", f"{at}/heartbeat", {"sha256": SHA[1]}) == (200, {"is_active": False})
    camera = {"sha256": SHA[2], "application": "camera"}
    assert api.ask("POST", f"{at}/started", camera) == (200, {"is_active": True})
    rows = {"sha256": SHA[2], "latencies_ms": [10.0] * 5 + [20], "buckets": {bucket_of(20): 4}}
    assert api.ask("POST", f"{at}/latencies", rows) == (200, {"is_active": True})
    use = api.board.uses_of("digits", SHA[2])["anybody"]
    assert (use.starts, use.inferences) == (1, 10)
    assert use.p50_ms == pytest.approx(10, rel=0.0443)
    assert use.p90_ms == pytest.approx(20, rel=0.0443)
    shown = api.ask("GET", at)[1]["applications"]
    assert (shown["camera"]["starts"], shown["camera"]["p90_ms"]) == (1, None)
    shown = shown["anybody"]
    assert 0 <= shown["started_ago_s"] < 10
    assert shown["inferences"] == 10
    assert shown["resolution_ratio"] == 0.0443


def test_a_change_answers_who_waits_for_it(api: Api) -> None:
    change = api.ask("GET", "/v1/models")[1]["change"]
    threading.Timer(0.2, lambda: api.board.publish({"digits": a_view(3)})).start()
    status, found = api.ask("GET", f"/v1/changes?since={change}&timeout_s=20")
    assert status == 200
    assert found["change"] != change
    assert found["models"][0]["active"]["version"] == 3
    assert api.ask("GET", f"/v1/changes?since={found['change']}&timeout_s=0.1")[1] == found


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "code"),
    [
        ("GET", "/v1/models/faces", None, 404, "protocol.unknown"),
        ("GET", "/v1/models/..%2f..%2fetc", None, 404, "protocol.unknown"),
        ("GET", "/", None, 404, "protocol.unknown"),
        ("GET", "/v1/changes/digits", None, 404, "protocol.unknown"),
        ("GET", "/v2/models", None, 404, "protocol.unknown"),
        ("POST", "/v1/models", None, 405, "protocol.malformed"),
        ("GET", "/v1/models/digits/started", None, 405, "protocol.malformed"),
        ("PUT", "/v1/models/digits/hold", None, 400, "protocol.malformed"),
        ("PUT", "/v1/models/digits/hold", {"minutes": 61}, 400, "protocol.malformed"),
        ("PUT", "/v1/models/digits/hold", {"minutes": 0}, 400, "protocol.malformed"),
        ("PUT", "/v1/models/digits/hold", b'{"minutes": NaN}', 400, "protocol.malformed"),
        ("PUT", "/v1/models/digits/hold", {"minutes": 1, "holder": ""}, 400, "protocol.malformed"),
        ("PUT", "/v1/models/faces/hold", {"minutes": 1}, 404, "protocol.unknown"),
        ("DELETE", "/v1/models/faces/hold", None, 404, "protocol.unknown"),
        ("POST", "/v1/models/digits/started", {"sha256": "2"}, 400, "protocol.malformed"),
        ("POST", "/v1/models/digits/started", {"sha256": SHA[3]}, 409, "protocol.conflict"),
        ("POST", "/v1/models/digits/started", b"\xff{", 400, "protocol.malformed"),
        ("GET", "/v1/changes?since=x", None, 400, "protocol.malformed"),
        ("GET", "/v1/changes?since=nan", None, 400, "protocol.malformed"),
        ("GET", "/v1/changes?since=1&timeout_s=61", None, 400, "protocol.malformed"),
    ],
)
def test_what_is_wrong_is_said_as_a_problem_with_a_code(  # noqa: PLR0917 - a row of the table
    api: Api, method: str, target: str, body: Any, status: int, code: str
) -> None:
    found, problem = api.ask(method, target, body)
    assert (found, problem["status"], problem["code"]) == (status, status, code)
    assert problem["detail"]


@pytest.mark.parametrize(
    "rows",
    [
        {"latencies_ms": [-1.0]},
        {"latencies_ms": [True]},
        {"latencies_ms": ["1"]},
        {"latencies_ms": [1.0] * 10_001},
        {"buckets": {"240": 1}},
        {"buckets": {"5": 0}},
        {"buckets": {"5": 1.5}},
        {"buckets": {"x": 1}},
    ],
)
def test_nonsense_for_latencies_is_refused_and_nothing_of_it_counted(api: Api, rows: Any) -> None:
    body = {"sha256": SHA[2], "latencies_ms": [1.0]} | rows
    status, problem = api.ask("POST", "/v1/models/digits/latencies", body)
    assert (status, problem["code"]) == (400, "protocol.malformed")
    assert api.board.uses_of("digits", SHA[2]) == {}


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"POST /v1/models/digits/started HTTP/1.1\r\nContent-Length: 262145\r\n\r\n", 413),
        (b"POST /v1/models/digits/started HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 411),
        (b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"BREW /v1/models HTTP/1.1\r\n\r\n", 501),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
    ],
)
def test_what_is_no_request_is_refused(api: Api, content: bytes, status: int) -> None:
    assert MAX_BODY_BYTES == 262144
    found = api.raw(content)
    if not found.startswith(b"HTTP/1.1"):  # no version was understood: the body alone
        assert json.loads(found)["status"] == status
        return
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert json.loads(body)["code"] == "protocol.malformed"


def test_a_head_request_gets_no_body(api: Api) -> None:
    head, _, body = api.raw(b"HEAD /v1/models HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ")
    assert body == b""


def test_who_drips_is_cut_off_and_others_are_answered(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "REQUEST_S", 0.5)
    began_s = time.monotonic()
    with socket.socket(socket.AF_UNIX) as slow:
        slow.settimeout(10)
        slow.connect(str(api.path))
        try:
            while time.monotonic() - began_s < 5:
                slow.sendall(b"G")
                assert api.ask("GET", "/v1/models")[0] == 200
                time.sleep(0.05)
        except BrokenPipeError:
            pass
    assert time.monotonic() - began_s < 4


def test_beyond_the_limit_of_connections_the_answer_is_503_at_once_and_later_all_is_well(
    api: Api,
) -> None:
    waiting = []
    for _ in range(MAX_CONNECTIONS):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(api.path))
        waiting.append(sock)
    status, problem = api.ask("GET", "/v1/models")
    assert (status, problem["code"]) == (503, "transient.busy")
    for sock in waiting:
        sock.close()
    until_s = time.monotonic() + 5
    while api.ask("GET", "/v1/models")[0] != 200:
        assert time.monotonic() < until_s
        time.sleep(0.02)


def test_waiters_are_bounded_keep_nobody_out_and_free_their_place_when_they_go_away(
    api: Api,
) -> None:
    change = api.board.views()[0]
    request = f"GET /v1/changes?since={change}&timeout_s=60 HTTP/1.1\r\n\r\n".encode()
    ask_briefly = f"/v1/changes?since={change}&timeout_s=0.01"
    waiting = []
    for _ in range(MAX_WAITERS):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(api.path))
        sock.sendall(request)
        waiting.append(sock)
    until_s = time.monotonic() + 10
    while api.board._waiters < MAX_WAITERS:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    status, problem = api.ask("GET", ask_briefly)
    assert (status, problem["code"]) == (409, "transient.busy")
    assert api.ask("POST", "/v1/models/digits/heartbeat", {"sha256": SHA[2]})[0] == 200
    for sock in waiting:
        sock.close()
    while api.ask("GET", ask_briefly)[0] != 200:
        assert time.monotonic() < until_s
        time.sleep(0.1)


def test_without_threads_an_asker_is_dropped_and_its_place_is_free_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(MAX_CONNECTIONS + 1):
        with pytest.raises((HTTPException, OSError)):
            api.ask("GET", "/v1/models")
    monkeypatch.setattr(threading.Thread, "start", start)
    assert api.ask("GET", "/v1/models")[0] == 200


def test_without_file_descriptors_the_server_waits_and_goes_on(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[float] = []

    def refuse(_server: object) -> None:
        calls.append(time.monotonic())
        if len(calls) >= 3:
            monkeypatch.setattr(socketserver.TCPServer, "get_request", accept)
        raise OSError(24, "Too many open files")

    accept = socketserver.TCPServer.get_request
    monkeypatch.setattr(socketserver.TCPServer, "get_request", refuse)
    assert api.ask("GET", "/v1/models")[0] == 200
    assert calls[2] - calls[0] >= 2 * server_module.ACCEPT_PAUSE_S


def test_the_socket_is_for_its_group_and_removed_at_the_end(tmp_path: Path) -> None:
    api = Api(tmp_path)
    assert stat.S_IMODE(api.path.stat().st_mode) == 0o660
    began_s = time.monotonic()
    api.close()
    assert time.monotonic() - began_s < 1
    assert list(tmp_path.iterdir()) == []


def test_the_socket_that_a_killed_agent_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "api.sock"))
    api = Api(tmp_path)
    assert api.ask("GET", "/v1/models")[0] == 200
    api.close()


def test_the_socket_of_a_living_process_is_left_alone(api: Api, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="another process listens") as caught:
        Api(tmp_path)
    assert caught.value.code is ErrorCode.CONFIG_IN_USE
    assert api.ask("GET", "/v1/models")[0] == 200


@pytest.mark.parametrize("what", ["file", "no folder", "long", "group"])
def test_a_socket_that_cannot_be_made_is_a_config_error(tmp_path: Path, what: str) -> None:
    path, group = tmp_path / "api.sock", None
    if what == "file":
        path.write_text("precious")
    elif what == "no folder":
        path = tmp_path / "none" / "api.sock"
    elif what == "long":
        path = tmp_path / ("a" * 120)
    else:
        group = "no-such-group"
    with pytest.raises(ConfigError, match=r"\[local\] socket"):
        LocalServer(path, 0o660, group, Routes(Board(HOUR_S), HOUR_S))
    assert not path.exists() or path.read_text() == "precious"


def test_a_successors_socket_is_not_removed(tmp_path: Path) -> None:
    api = Api(tmp_path)
    api.path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(api.path))
        api.close()
        assert api.path.exists()
