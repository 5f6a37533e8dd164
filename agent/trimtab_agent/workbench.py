"""The one place for heavy work: at most one download and one child at a time, for one owner.

A Raspberry Pi cannot measure truthfully while it also downloads, and cannot hold two models more
than it must; so whoever wants to do heavy work claims the bench first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trimtab_agent.children import ChildRunner
from trimtab_agent.fetch import Fetch
from trimtab_agent.measure.jobs import Job, JobResult
from trimtab_agent.partial import PartFile
from trimtab_agent.store import Store
from trimtab_agent.window import WindowSettings
from trimtab_protocol.errors import TrimtabError
from trimtab_protocol.manifest import Payload

Ask = Callable[[Payload, list[int]], None]
OnFetched = Callable[[], None]
OnFailed = Callable[[TrimtabError], None]
OnResult = Callable[[JobResult], None]


@dataclass(frozen=True)
class Delivery:
    """A download and who waits for it."""

    fetch: Fetch
    on_fetched: OnFetched
    on_failed: OnFailed


class Workbench:
    """See the module.

    Args:
        store: Where parts are kept.
        children: Runs jobs.
        ask: Sends a request for chunks.
    """

    def __init__(self, store: Store, children: ChildRunner, ask: Ask) -> None:
        self._store = store
        self._children = children
        self._ask = ask
        self._owner: str | None = None
        self._delivery: Delivery | None = None
        self._waiting_job: tuple[str, OnResult] | None = None

    @property
    def owner(self) -> str | None:
        """Who has claimed the bench."""
        return self._owner

    @property
    def fetch_in_progress(self) -> Fetch | None:
        """The running download."""
        return self._delivery.fetch if self._delivery is not None else None

    def claim(self, owner: str) -> bool:
        """Take the bench, if it is free or already one's own."""
        if self._owner not in (None, owner):
            return False
        self._owner = owner
        return True

    def release(self, owner: str) -> None:
        """Give it back, and stop what still runs on it."""
        if self._owner != owner:
            return
        self._owner = None
        self._end_delivery()
        if self._waiting_job is not None:
            self._waiting_job = None
            self._children.kill()

    def fetch(
        self,
        payload: Payload,
        settings: WindowSettings,
        listeners: tuple[OnFetched, OnFailed],
        now_s: float,
    ) -> None:
        """Begin or resume a download; `on_fetched` comes at once if nothing is lacking.

        Raises:
            StorageError: The part file cannot be made.
        """
        part = PartFile(self._store.part_path(payload.sha256), payload)
        fetch = Fetch(payload, part, settings, lambda indices: self._ask(payload, indices), now_s)
        self._delivery = Delivery(fetch, *listeners)
        self._advance(lambda: fetch.ask(now_s))

    def run(self, job: Job, on_result: OnResult) -> None:
        """Start a child."""
        self._waiting_job = (job.job_id, on_result)
        self._children.start(job)

    def on_chunk(self, sha256: str, index: int, chunk: bytes, now_s: float) -> None:
        """A chunk came; one that nobody waits for is passed over."""
        delivery = self._delivery
        if delivery is None or delivery.fetch.payload.sha256 != sha256:
            return
        if index < delivery.fetch.payload.chunk_count:
            self._advance(lambda: delivery.fetch.on_chunk(index, chunk, now_s))

    def on_tick(self, now_s: float) -> None:
        """Time has passed."""
        delivery = self._delivery
        if delivery is not None:
            self._advance(lambda: delivery.fetch.on_tick(now_s))

    def on_connected(self, now_s: float) -> None:
        """The session with the broker is new."""
        delivery = self._delivery
        if delivery is not None:
            self._advance(lambda: delivery.fetch.on_connected(now_s))

    def on_child_finished(self, result: JobResult) -> None:
        """A child ended; the result of one that was given up is passed over."""
        if self._waiting_job is None or self._waiting_job[0] != result.job_id:
            return
        on_result = self._waiting_job[1]
        self._waiting_job = None
        on_result(result)

    def _advance(self, act: Callable[[], None]) -> None:
        delivery = self._delivery
        if delivery is None:
            return
        try:
            act()
        except TrimtabError as error:
            self._end_delivery()
            delivery.on_failed(error)
            return
        if delivery.fetch.is_done:
            self._end_delivery()
            delivery.on_fetched()

    def _end_delivery(self) -> None:
        if self._delivery is not None:
            self._delivery.fetch.close()
            self._delivery = None
