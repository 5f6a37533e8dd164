"""One payload on its way: the window decides, the part file keeps, `request` asks."""

from __future__ import annotations

from collections.abc import Callable

from trimtab_agent.partial import PartFile
from trimtab_agent.window import Window, WindowSettings
from trimtab_protocol.errors import ErrorCode, TransientError, TrustError
from trimtab_protocol.manifest import Payload

Request = Callable[[list[int]], None]


class Fetch:
    """The download of one payload.

    Args:
        payload: What to fetch.
        part: Where it arrives; closed by `close`.
        settings: Of the window.
        request: Asks the control plane for chunks; called only while connected.
        now_s: A monotonic clock's time.
    """

    def __init__(
        self,
        payload: Payload,
        part: PartFile,
        settings: WindowSettings,
        request: Request,
        now_s: float,
    ) -> None:
        self.payload = payload
        self._part = part
        self._request = request
        self._window = Window(part.missing(), payload.chunk_bytes, settings, now_s)

    @property
    def is_done(self) -> bool:
        """Whether every chunk is on disk."""
        return self._window.lacking_count == 0

    @property
    def fetched_count(self) -> int:
        """How many chunks are on disk."""
        return self.payload.chunk_count - self._window.lacking_count

    def on_chunk(self, index: int, chunk: bytes, now_s: float) -> None:
        """A chunk came: keep it if it is wanted and good, ask for more.

        Raises:
            TrustError: One chunk was bad for the last time allowed.
            TransientError: The control plane says it does not have it, for the last time allowed.
            StorageError: The disk refuses.
        """
        if not self._window.is_lacking(index):
            return
        if not chunk:
            self._window.refuse(
                index,
                TransientError(
                    f"the control plane does not have chunk {index} of {self.payload.sha256[:12]}…",
                    code=ErrorCode.TRANSIENT_DELIVERY,
                ),
            )
            return  # asked again at the next tick: the server may just be starting
        try:
            self._part.write(index, chunk)
        except TrustError as error:
            self._window.refuse(index, error)
        else:
            self._window.accept(index, now_s)
        self.ask(now_s)

    def on_tick(self, now_s: float) -> None:
        """Time has passed: take back late chunks and ask again.

        Raises:
            TransientError: Nothing has come for too long.
        """
        self._window.expire(now_s)
        self.ask(now_s)

    def on_connected(self, now_s: float) -> None:
        """The session is new: what was asked for will not come."""
        self._window.restart(now_s)
        self.ask(now_s)

    def ask(self, now_s: float) -> None:
        """Send the requests that the window allows."""
        indices = self._window.take(now_s)
        if indices:
            self._request(indices)

    def close(self) -> None:
        """Stop; what has arrived stays on disk."""
        self._part.close()
