"""Listens to the applications before and after an activation; `in_use_verdict` judges."""

from __future__ import annotations

from trimtab_agent.in_use_verdict import UseVerdict, judge_use, know_before, know_since
from trimtab_agent.journal import Journal
from trimtab_agent.records import DeploymentRecord
from trimtab_agent.tools import Tools


class InUseWatch:
    """See the module.

    Args:
        tools: The agent's parts.
        journal: Where what has to last over a restart is written down.
    """

    def __init__(self, tools: Tools, journal: Journal) -> None:
        self._tools = tools
        self._journal = journal
        self._since: dict[str, tuple[str, float]] = {}  # name -> (deployment, watched since)

    def before_swap(self, name: str, record: DeploymentRecord) -> DeploymentRecord:
        """The record with what is known of the incumbent's applications.

        What was said of the candidate, should it have been active before, is forgotten.

        Raises:
            StorageError: The active link cannot be read.
        """
        tools, active = self._tools, self._tools.store.active(name)
        uses = tools.in_use.uses_of(name, active.ref.sha256) if active is not None else {}
        known = know_before(uses, record.policy, tools.clock.monotonic_s())
        if record.artifact is not None:
            tools.in_use.forget(name, record.artifact.sha256)
        return record.model_copy(update={"applications": known})

    def look(self, name: str, record: DeploymentRecord) -> UseVerdict:
        """What the applications say now of a deployment in probation."""
        if record.artifact is None:
            return UseVerdict()
        now_s = self._tools.clock.monotonic_s()
        deployment_id, since_s = self._since.get(name, ("", 0.0))
        if deployment_id != record.deployment_id:
            since_s = now_s
            self._since[name] = (record.deployment_id, now_s)
        uses = self._tools.in_use.uses_of(name, record.artifact.sha256)
        known = know_since(record.applications, uses)
        if known != record.applications:
            self._journal.note(name, record.model_copy(update={"applications": known}))
        return judge_use(known, uses, record.policy, since_s=since_s, now_s=now_s)
