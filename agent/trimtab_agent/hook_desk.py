"""What hooks have been asked and have said, per model name.

Whoever needs an answer asks again at every turn until there is one; asking twice starts nothing
twice. "Later" is asked again every 60 s, for at most 30 min; then it counts as a refusal. What was
said is remembered until the next question of that name, so that a full disk asks nobody again.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from trimtab_agent.hook_rules import HookCall, HookResult, Verdict
from trimtab_agent.hooks import HookRunner
from trimtab_protocol.errors import ErrorCode, RejectedError, StorageError, TrimtabError

log = logging.getLogger(__name__)

RETRY_AFTER_S = 60.0
GIVE_UP_AFTER_S = 30 * 60.0


@dataclass(frozen=True)
class Answer:
    """The end of a question; `error` is the reason to refuse, None to go on."""

    error: TrimtabError | None = None


GO = Answer()


@dataclass
class Line:
    """The questions of one model name; the first is the one that is asked."""

    calls: deque[HookCall] = field(default_factory=deque)
    is_running: bool = False
    first_asked_s: float | None = None
    ask_at_s: float = 0.0
    last: tuple[HookCall, Answer] | None = None


class HookDesk:
    """See the module.

    Args:
        runner: Runs hooks.
        monotonic_s: Never goes back.
    """

    def __init__(self, runner: HookRunner, monotonic_s: Callable[[], float]) -> None:
        self._runner = runner
        self._monotonic_s = monotonic_s
        self._lines: dict[str, Line] = {}

    def ask(self, call: HookCall) -> Answer | None:
        """What a hook says; None while it has not said it, ask again then."""
        line = self._lines.setdefault(call.name, Line())
        if line.last is not None and line.last[0] == call:
            return line.last[1]
        if call not in line.calls:
            if not self._runner.has(call.point):
                return GO
            if line.calls and not line.is_running:
                self._end(line, GO)  # it waited for a later that nobody needs any more
            line.calls.append(call)
        self._work(line)
        return line.last[1] if line.last is not None and line.last[0] == call else None

    def is_open(self, name: str, deployment_id: str) -> bool:
        """Whether a question of this deployment has no answer yet."""
        line = self._lines.get(name)
        return line is not None and any(row.deployment_id == deployment_id for row in line.calls)

    def work(self) -> None:
        """Ask again whom it is time to ask."""
        for line in self._lines.values():
            self._work(line)

    def on_finished(self, result: HookResult) -> None:
        """A hook ended."""
        log.info("%s: %s", result.call.name, result.detail)
        line = self._lines.get(result.call.name)
        if line is None or not line.calls or line.calls[0] != result.call:
            return
        line.is_running = False
        now_s = self._monotonic_s()
        waited_s = now_s - (line.first_asked_s if line.first_asked_s is not None else now_s)
        if result.verdict is Verdict.GO:
            self._end(line, GO)
        elif result.verdict is Verdict.LATER and waited_s + RETRY_AFTER_S <= GIVE_UP_AFTER_S:
            line.ask_at_s = now_s + RETRY_AFTER_S
        else:
            still = f" for {waited_s:.0f} s" if result.verdict is Verdict.LATER else ""
            self._end(line, _refusal(result.detail + still))

    def _work(self, line: Line) -> None:
        if line.is_running or not line.calls or self._monotonic_s() < line.ask_at_s:
            return
        if line.first_asked_s is None:
            line.first_asked_s = self._monotonic_s()
        try:
            self._runner.start(line.calls[0])
        except StorageError as error:
            self._end(line, _refusal(error.message))
        else:
            line.is_running = True

    def _end(self, line: Line, answer: Answer) -> None:
        line.last = (line.calls.popleft(), answer)
        line.first_asked_s, line.ask_at_s = None, 0.0


def _refusal(detail: str) -> Answer:
    return Answer(RejectedError(detail, code=ErrorCode.REJECTED_HOOK))
