"""The one place for heavy work, and what it passes over."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.agent_rig import AgentRig
from support.artifacts import make_artifact
from trimtab_agent.measure.jobs import JobResult
from trimtab_protocol.errors import TrimtabError
from trimtab_protocol.manifest import Payload
from trimtab_protocol.signing import read_manifest

CHUNK = 1024
SIGNED, CONTENT = make_artifact("digits", 1, bytes(range(256)) * 12, chunk_bytes=CHUNK)
PAYLOAD: Payload = read_manifest(SIGNED).payload


@pytest.fixture
def rig(tmp_path: Path) -> AgentRig:
    rig = AgentRig(tmp_path)
    rig.offer(SIGNED, CONTENT)
    return rig


class Listener:
    """What a download told."""

    def __init__(self, rig: AgentRig) -> None:
        self.told: list[str] = []
        rig.tools.bench.claim("one")
        settings = rig.tools.window_settings(None)
        listeners = (lambda: self.told.append("fetched"), self.on_failed)
        rig.tools.bench.fetch(PAYLOAD, settings, listeners, rig.clock.now())

    def on_failed(self, error: TrimtabError) -> None:
        self.told.append(error.code.value)


def test_the_bench_has_one_owner_who_may_claim_it_again(rig: AgentRig) -> None:
    bench = rig.tools.bench
    assert bench.claim("one")
    assert bench.claim("one")
    assert not bench.claim("two")
    bench.release("two")
    assert bench.owner == "one"
    bench.release("one")
    assert bench.claim("two")


def test_chunks_of_another_payload_or_beyond_the_end_are_passed_over(rig: AgentRig) -> None:
    listener = Listener(rig)
    bench = rig.tools.bench
    for sha256, index in (("f" * 64, 0), (PAYLOAD.sha256, 3), (PAYLOAD.sha256, 10**6)):
        bench.on_chunk(sha256, index, b"x" * CHUNK, rig.clock.now())
    assert bench.fetch_in_progress is not None
    assert bench.fetch_in_progress.fetched_count == 0
    assert listener.told == []


def test_a_new_session_asks_again_for_what_was_on_its_way(rig: AgentRig) -> None:
    """[P-6.2]"""
    rig.delivery.is_silent = True
    listener = Listener(rig)
    assert rig.delivery.requested == [0, 1, 2]
    rig.delivery.is_silent = False
    rig.tools.bench.on_connected(rig.clock.now())
    assert sorted(rig.delivery.requested) == [0, 0, 1, 1, 2, 2]
    while rig.turn():
        pass
    assert listener.told == ["fetched"]
    assert rig.tools.bench.fetch_in_progress is None


def test_whatever_comes_again_for_a_chunk_that_is_here_is_passed_over(rig: AgentRig) -> None:
    listener = Listener(rig)
    for chunk in (CONTENT[:CHUNK], CONTENT[:CHUNK], *[b"bad"] * 5, *[b""] * 5):
        rig.tools.bench.on_chunk(PAYLOAD.sha256, 0, chunk, rig.clock.now())
    assert rig.tools.bench.fetch_in_progress is not None
    assert rig.tools.bench.fetch_in_progress.fetched_count == 1
    assert listener.told == []


def test_without_work_time_sessions_and_strangers_results_do_nothing(rig: AgentRig) -> None:
    bench = rig.tools.bench
    bench.on_tick(1.0)
    bench.on_connected(1.0)
    bench.on_chunk(PAYLOAD.sha256, 0, b"x", 1.0)
    bench.on_child_finished(JobResult(job_id="given up long ago"))
    assert bench.owner is None


def test_what_is_released_in_mid_download_keeps_its_chunks_on_disk(rig: AgentRig) -> None:
    """[P-6.6]"""
    Listener(rig)
    rig.tools.bench.on_chunk(PAYLOAD.sha256, 1, CONTENT[CHUNK : 2 * CHUNK], rig.clock.now())
    rig.tools.bench.release("one")
    rig.delivery.requested.clear()
    rig.delivery.outgoing.clear()
    Listener(rig)
    assert rig.delivery.requested == [0, 2]
