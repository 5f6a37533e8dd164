"""The client that applications use, against the real API on a real socket."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.local_views import SHA, a_view
from trimtab_agent import client as client_module
from trimtab_agent.client import AgentUnreachable, Client, Latencies, LocalApiError, Model
from trimtab_agent.local.board import MAX_WAITERS, Board
from trimtab_agent.local.routes import Routes
from trimtab_agent.local.server import LocalServer

HOUR_S = 3600.0


class Agent:
    """The API alone, at a path where it can go away and come back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start()

    def start(self) -> None:
        self.board = Board(HOUR_S)
        self.board.publish({"digits": a_view(2)})
        self._server = LocalServer(self.path, 0o600, None, Routes(self.board, HOUR_S))
        self._server.start()

    def stop(self) -> None:
        self.board.close()
        self._server.stop()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "api.sock")
    yield made
    made.stop()


@pytest.fixture
def client(agent: Agent) -> Client:
    return Client(agent.path, "camera")


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "RETRY_S", 0.01)


def test_an_application_needs_only_the_standard_library() -> None:
    program = (
        "import sys\nbefore = set(sys.modules)\nimport trimtab_agent.client\n"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*names - set(sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["trimtab_agent"]


def test_the_active_model_has_a_path_that_stays_and_one_that_follows(client: Client) -> None:
    model = client.model("digits")
    assert model == Model(
        name="digits",
        version=2,
        sha256=SHA[2],
        runtime="onnxruntime",
        path="/state/slots/digits/2/model.onnx",
        stable_path="/state/models/digits/active/model.onnx",
    )
    assert client.models() == {"digits": model}


def test_a_name_without_an_active_version_has_no_model(agent: Agent, client: Client) -> None:
    agent.board.publish({"digits": a_view(2).model_copy(update={"active": None})})
    assert client.model("digits") is None
    assert client.models() == {}


def test_a_name_that_the_device_does_not_know_is_an_error_with_its_code(client: Client) -> None:
    with pytest.raises(LocalApiError, match="it has: digits") as caught:
        client.model("faces/../digits")
    assert (caught.value.status, caught.value.code) == (404, "protocol.unknown")


def test_a_hold_ends_with_its_block_whatever_happens_in_it(agent: Agent, client: Client) -> None:
    with pytest.raises(ZeroDivisionError), client.hold("digits", minutes=2) as held_s:  # noqa: PT012 - the block is what is tested
        assert held_s == 120
        assert agent.board.held_until_s("digits") is not None
        raise ZeroDivisionError
    assert agent.board.held_until_s("digits") is None


def test_two_blocks_hold_by_themselves(agent: Agent, client: Client) -> None:
    with client.hold("digits", minutes=2):
        with client.hold("digits", minutes=2):
            pass
        assert agent.board.held_until_s("digits") is not None


def test_an_agent_that_went_away_within_a_hold_is_no_error(agent: Agent, client: Client) -> None:
    with client.hold("digits", minutes=2) as held_s:
        agent.stop()
    assert held_s == 120


def test_what_an_application_says_arrives_under_its_name(agent: Agent, client: Client) -> None:
    assert client.started("digits", SHA[2])
    assert not client.heartbeat("digits", SHA[1])
    assert client.send_latencies("digits", SHA[2], {80: 3})
    use = agent.board.uses_of("digits", SHA[2])["camera"]
    assert (use.starts, use.inferences) == (1, 3)
    assert agent.board.uses_of("digits", SHA[1])["camera"].heartbeat_at_s is not None


def test_a_file_that_the_name_has_no_more_is_not_active(client: Client) -> None:
    assert not client.heartbeat("digits", SHA[3])


def test_latencies_that_could_not_be_sent_are_sent_the_next_time(
    agent: Agent, client: Client
) -> None:
    latencies = Latencies(client, "digits", SHA[2])
    latencies.send()
    assert agent.board.uses_of("digits", SHA[2]) == {}
    latencies.add(5.0)
    agent.stop()
    with pytest.raises(AgentUnreachable, match=r"no agent answers on .*api\.sock"):
        latencies.send()
    latencies.add(6.0)
    agent.start()
    latencies.send()
    latencies.send()
    assert agent.board.uses_of("digits", SHA[2])["camera"].inferences == 2


def test_who_watches_gets_the_state_now_and_every_change_once(agent: Agent, client: Client) -> None:
    changes = client.watch(wait_s=0.05)
    assert next(changes)["digits"].version == 2
    threading.Timer(0.2, lambda: agent.board.publish({"digits": a_view(3)})).start()
    assert next(changes)["digits"].version == 3


def test_who_watches_goes_on_after_a_restart_of_the_agent(agent: Agent, client: Client) -> None:
    changes = client.watch(wait_s=0.05)
    next(changes)
    agent.stop()

    def come_back() -> None:
        agent.start()
        agent.board.publish({"digits": a_view(3)})

    threading.Timer(0.2, come_back).start()
    found = next(changes)["digits"].version
    assert found == 3 or next(changes)["digits"].version == 3


def test_who_watches_waits_for_its_turn_where_too_many_do(agent: Agent, client: Client) -> None:
    agent.board._waiters = MAX_WAITERS
    changes = client.watch(wait_s=0.05)

    def make_room() -> None:
        agent.board._waiters = 0

    threading.Timer(0.2, make_room).start()
    assert next(changes)["digits"].version == 2


def test_who_watches_an_agent_that_refuses_is_told(client: Client) -> None:
    with pytest.raises(LocalApiError, match="timeout_s must be"):
        next(client.watch(wait_s=61))
