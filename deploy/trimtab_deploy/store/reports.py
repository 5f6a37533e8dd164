"""Reports: each kept once, by device and report id, before it is acknowledged. [P-4.4]"""

from __future__ import annotations

from sqlalchemy import Connection, func, insert, select

from trimtab_deploy.store.schema import REPORTS
from trimtab_protocol.messages import DeploymentReport, EventReport, TrialReport


def add(
    connection: Connection,
    device: str,
    report: TrialReport | DeploymentReport | EventReport,
    now: float,
) -> bool:
    """Keep a report; False if it was there already."""
    found = connection.execute(
        select(REPORTS.c.kind).where(
            REPORTS.c.device == device, REPORTS.c.report_id == report.report_id
        )
    ).first()
    if found is not None:
        return False
    connection.execute(
        insert(REPORTS).values(
            device=device,
            report_id=report.report_id,
            kind=report.kind,
            received_at=now,
            body=report.model_dump_json(exclude_none=True),
        )
    )
    return True


def count(connection: Connection, device: str) -> int:
    """How many reports of a device are kept."""
    return int(
        connection.execute(
            select(func.count()).select_from(REPORTS).where(REPORTS.c.device == device)
        ).scalar_one()
    )
