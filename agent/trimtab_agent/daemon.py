"""The decision loop: one thread, one queue of events, no waiting anywhere else.

broker ─▶ Received ─┐
broker ─▶ Connected ┼─▶ queue ─▶ handle ─▶ deployments, trials, outbox ─▶ publish
child  ─▶ Finished ─┘               ▲
time ─────────────┘ (a tick when the queue is empty)
"""

from __future__ import annotations

import logging
import queue
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from trimtab_agent import systemd
from trimtab_agent.deployments import Deployments
from trimtab_agent.desires import Desires
from trimtab_agent.events import (
    ChildFinished,
    Connected,
    Disconnected,
    Event,
    HookFinished,
    Received,
    Stop,
)
from trimtab_agent.journal import Journal
from trimtab_agent.link import Link
from trimtab_agent.tools import Tools
from trimtab_agent.trials import Trials
from trimtab_protocol.errors import (
    ConfigError,
    ErrorCode,
    ProtocolError,
    StorageError,
    TrimtabError,
)
from trimtab_protocol.messages import (
    Ack,
    Ask,
    Birth,
    Desired,
    EventReport,
    Presence,
    Reported,
    Status,
    encode,
    parse_message,
)
from trimtab_protocol.topics import ChunkTopic, DeviceTopic, Leaf, device_topic, parse_topic

if TYPE_CHECKING:
    from trimtab_agent.local.api import LocalApi

log = logging.getLogger(__name__)

TICK_S = 0.25
REPORTED_MIN_INTERVAL_S = 0.2
PROGRESS_INTERVAL_S = 5.0


@dataclass(frozen=True)
class Parts:
    """What a daemon is made of; `bootstrap` puts it together."""

    site: str
    device: str
    birth: Birth
    tools: Tools
    journal: Journal
    deployments: Deployments
    trials: Trials
    desires: Desires
    link: Link
    events: queue.SimpleQueue[Event]
    first_connect_timeout_s: float
    was_ever_connected: bool
    remember_connected: Callable[[], None]
    local: LocalApi | None = None


class Daemon:
    """The resident process.

    Args:
        parts: Everything it uses.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._is_connected = False
        self._was_ever_connected = parts.was_ever_connected
        self._reported_revision = -1
        self._reported_at_s = 0.0
        self._ticked_at_s = 0.0
        self._dropped: Counter[str] = Counter()
        self._last_reason = "no answer yet"
        self._is_refusal_known = False
        self._handlers: dict[Leaf, Callable[[bytes], None]] = {
            Leaf.DESIRED: self._on_desired,
            Leaf.ASK: self._on_ask,
            Leaf.ACK: self._on_ack,
        }

    def run(self) -> None:
        """Resume, connect, and react until somebody says Stop.

        Raises:
            ConfigError: The broker was never reached within the first-connect timeout; says what
                was tried and what the last answer was.
        """
        parts = self._parts
        started_s = parts.tools.clock.monotonic_s()
        self._guard(parts.deployments.resume)
        newest = parts.desires.newest
        if newest is not None:
            self._guard(lambda: parts.deployments.take(newest))
        if parts.local is not None:
            parts.local.open()
        parts.link.open()
        systemd.notify("READY=1")
        try:
            while self._turn():
                self._check_first_connect(started_s)
        finally:
            systemd.notify("STOPPING=1")
            goodbye = (self._topic(Leaf.STATUS), encode(self._status(Presence.OFFLINE)))
            if parts.tools.bench.owner is not None:
                parts.tools.bench.release(parts.tools.bench.owner)
            if parts.local is not None:
                parts.local.close()
            parts.link.close(goodbye)

    def _turn(self) -> bool:
        try:
            event = self._parts.events.get(timeout=TICK_S)
        except queue.Empty:
            event = None
        if isinstance(event, Stop):
            return False
        if event is not None:
            self._guard(lambda: self._handle(event))
        if self._now_s() - self._ticked_at_s >= TICK_S:
            self._ticked_at_s = self._now_s()
            systemd.notify("WATCHDOG=1")
            self._guard(lambda: self._parts.tools.bench.on_tick(self._now_s()))
        self._guard(self._work)
        if self._parts.local is not None:
            self._guard(self._parts.local.publish)
        return True

    def _work(self) -> None:
        self._parts.deployments.work()
        if not self._parts.deployments.has_heavy_work():
            self._parts.trials.work()
        if self._is_connected:
            for payload in self._parts.tools.outbox.due(self._now_s()):
                self._publish(Leaf.REPORT, payload)
            self._publish_reported()

    def _handle(self, event: Event) -> None:
        if isinstance(event, Received):
            self._on_message(event)
        elif isinstance(event, Connected):
            self._on_connected()
        elif isinstance(event, Disconnected):
            self._is_connected = False
            if event.is_refused or not self._is_refusal_known:
                self._last_reason = event.reason  # "not authorized" tells more than what follows it
            self._is_refusal_known |= event.is_refused
            log.warning("not connected: %s", event.reason)
        elif isinstance(event, ChildFinished):
            self._parts.tools.bench.on_child_finished(event.result)
        elif isinstance(event, HookFinished):
            self._parts.deployments.on_hook_finished(event.result)

    def _on_connected(self) -> None:
        log.info("connected as %s", self._parts.device)
        self._is_connected = True
        if not self._was_ever_connected:
            self._was_ever_connected = True
            self._parts.remember_connected()
        self._publish(
            Leaf.BIRTH, encode(self._parts.birth.model_copy(update={"sent_at": time.time()}))
        )
        self._publish(Leaf.STATUS, encode(self._status(Presence.ONLINE)))
        self._reported_revision = -1
        self._parts.tools.outbox.forget_sending()
        self._parts.tools.bench.on_connected(self._now_s())

    def _on_message(self, message: Received) -> None:
        topic = parse_topic(message.topic)
        if isinstance(topic, ChunkTopic):
            self._parts.tools.bench.on_chunk(
                topic.sha256, topic.index, message.payload, self._now_s()
            )
            return
        handler = self._handlers.get(topic.leaf) if isinstance(topic, DeviceTopic) else None
        if handler is not None and message.payload:
            handler(message.payload)

    def _on_desired(self, payload: bytes) -> None:
        desired = parse_message(Desired, payload)
        if self._parts.desires.is_news(desired):
            self._parts.desires.remember(desired)
            self._parts.deployments.take(desired)
            self._reported_revision = -1

    def _on_ask(self, payload: bytes) -> None:
        self._parts.trials.take(parse_message(Ask, payload))

    def _on_ack(self, payload: bytes) -> None:
        self._parts.tools.outbox.acknowledge(parse_message(Ack, payload).report_ids)

    def _guard(self, act: Callable[[], None]) -> None:
        """A message or a step that fails must not end the agent."""
        try:
            act()
        except ProtocolError as error:
            self._guard(partial(self._drop, error))  # its report may meet a full disk
        except StorageError as error:
            log.error("storage: %s; what is active stays active", error)
        except TrimtabError as error:
            log.error("[%s] %s", error.code.value, error)

    def _drop(self, error: ProtocolError) -> None:
        """Count every malformed message, report the first of its kind."""
        self._dropped[error.code.value] += 1
        log.warning("dropped a message: [%s] %s", error.code.value, error)
        if self._dropped[error.code.value] == 1:
            report_id = f"{self._parts.birth.session_id}.dropped.{error.code.value}"
            self._parts.tools.outbox.put(
                EventReport(
                    report_id=report_id,
                    sent_at=self._parts.tools.clock.now(),
                    event="message_dropped",
                    error_code=error.code,
                    detail=error.message,
                )
            )

    def _check_first_connect(self, started_s: float) -> None:
        limit_s = self._parts.first_connect_timeout_s
        if self._was_ever_connected or limit_s == 0 or self._now_s() - started_s < limit_s:
            return
        raise ConfigError(
            f"the broker was never reached within {limit_s:.0f} s ({self._last_reason}): check host, "
            "port, username and password in the credentials",
            code=ErrorCode.TRANSIENT_BROKER,
        )

    def _publish_reported(self) -> None:
        now_s, revision = self._now_s(), self._parts.journal.revision
        is_fetching = self._parts.tools.bench.fetch_in_progress is not None
        is_stale = revision != self._reported_revision
        pause_s = REPORTED_MIN_INTERVAL_S if is_stale else PROGRESS_INTERVAL_S
        if not (is_stale or is_fetching) or now_s - self._reported_at_s < pause_s:
            return
        reported = Reported(
            sequence=self._parts.desires.sequence,
            boot_id=self._parts.birth.boot_id,
            session_id=self._parts.birth.session_id,
            models=self._parts.journal.status(),
            sent_at=self._parts.tools.clock.now(),
        )
        self._publish(Leaf.REPORTED, encode(reported))
        self._reported_revision = revision
        self._reported_at_s = now_s

    def _status(self, presence: Presence) -> Status:
        birth = self._parts.birth
        return Status(presence=presence, boot_id=birth.boot_id, session_id=birth.session_id)

    def _publish(self, leaf: Leaf, payload: bytes) -> None:
        is_retained = leaf in (Leaf.BIRTH, Leaf.STATUS, Leaf.REPORTED)
        self._parts.link.publish(self._topic(leaf), payload, qos=1, is_retained=is_retained)

    def _topic(self, leaf: Leaf) -> str:
        return device_topic(self._parts.site, self._parts.device, leaf)

    def _now_s(self) -> float:
        return self._parts.tools.clock.monotonic_s()
