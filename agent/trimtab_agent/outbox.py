"""Reports on disk until the control plane has acknowledged them.

Rules:
    1. A report is a file before it is sent, and until its id comes back in an acknowledgement. [P-4.4]
    2. Putting the same id twice changes nothing, so a report can be put again after a restart.
    3. At most `max_reports` wait. When there are more, the oldest trial reports go first and are
       counted; deployments and events are never dropped.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from trimtab_agent.disk import Disk
from trimtab_protocol.errors import ProtocolError
from trimtab_protocol.messages import (
    DeploymentReport,
    EventReport,
    TrialReport,
    encode,
    parse_report,
)

log = logging.getLogger(__name__)

Report = TrialReport | DeploymentReport | EventReport

RESEND_AFTER_S = 20.0
MAX_IN_FLIGHT = 50


@dataclass
class Waiting:
    """One report that waits."""

    path: Path
    is_droppable: bool
    sent_at_s: float | None = None


class Outbox:
    """The folder of waiting reports.

    Args:
        folder: Read when made; what an earlier process left is sent again.
        disk: For durable writes.
        max_reports: See rule 3.
    """

    def __init__(self, folder: Path, disk: Disk, max_reports: int = 2000) -> None:
        self._folder = folder
        self._disk = disk
        self._max_reports = max_reports
        self._waiting: dict[str, Waiting] = {}
        self._next_number = 1
        self.dropped_count = 0
        self._load()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, report: Report) -> None:
        """Make a report durable.

        Raises:
            StorageError: The disk refuses; the report is not in the outbox.
        """
        if report.report_id in self._waiting:
            return
        path = self._folder / f"{self._next_number:010d}-{report.report_id}.json"
        self._disk.write_file(path, encode(report))
        self._next_number += 1
        self._waiting[report.report_id] = Waiting(path, isinstance(report, TrialReport))
        self._drop_surplus()

    def due(self, now_s: float) -> list[bytes]:
        """What to send now, oldest first; it counts as sent from here on."""
        due = []
        for report_id, row in list(self._waiting.items())[:MAX_IN_FLIGHT]:
            if row.sent_at_s is None or now_s - row.sent_at_s > RESEND_AFTER_S:
                row.sent_at_s = now_s
                try:
                    due.append(row.path.read_bytes())
                except OSError as error:  # somebody or the disk took it: the others must go out
                    log.error("report %s is lost: %s", report_id, error)
                    del self._waiting[report_id]
                    self.dropped_count += 1
        return due

    def acknowledge(self, report_ids: tuple[str, ...]) -> None:
        """Forget reports that are safe with the control plane; unknown ids are no error."""
        for report_id in report_ids:
            row = self._waiting.pop(report_id, None)
            if row is not None:
                self._disk.remove(row.path)

    def forget_sending(self) -> None:
        """After a reconnect: nothing counts as sent any more."""
        for row in self._waiting.values():
            row.sent_at_s = None

    def _load(self) -> None:
        for path in self._folder.glob(".*.json.new"):
            self._disk.remove(path)  # half written when the power went; it was never in the outbox
        for path in sorted(self._folder.glob("[0-9]*.json")):
            try:
                report = parse_report(path.read_bytes())
                number = int(path.name.split("-", 1)[0])
            except (OSError, ValueError, ProtocolError):
                self._disk.remove(path)  # junk, or of an incompatible version; it cannot be sent
                self.dropped_count += 1
                continue
            self._next_number = max(self._next_number, number + 1)
            self._waiting[report.report_id] = Waiting(path, isinstance(report, TrialReport))

    def _drop_surplus(self) -> None:
        surplus = len(self._waiting) - self._max_reports
        droppable = [report_id for report_id, row in self._waiting.items() if row.is_droppable]
        for report_id in droppable[: max(0, surplus)]:
            self._disk.remove(self._waiting.pop(report_id).path)
            self.dropped_count += 1
