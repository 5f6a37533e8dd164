"""Simulated children, except for one that really is a process and really comes to a bad end.

It is the agent's own child and worker, under the agent's own limits; only the runtime library in it
is exchanged for `hostile/onnxruntime`.
"""

from __future__ import annotations

import os
import queue
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from support.agent_rig import SimulatedChildren
from trimtab_agent.children import ProcessRunner
from trimtab_agent.events import ChildFinished
from trimtab_agent.measure.jobs import Job, JobResult

HOSTILE = Path(__file__).with_name("hostile")
MAX_MEMORY_BYTES = 512 * 1024 * 1024
HANG_LIMIT_S = 2.0
MAX_WAIT_S = 60.0


@dataclass
class MortalChildren(SimulatedChildren):
    """`victim` is whose next child ends badly, and `ends_by` how: crash, hang or memory."""

    victim: str = ""
    ends_by: str = ""
    folder: Path = Path()

    def finish(self) -> JobResult:
        if not self.ends_by or str(self.started[0].subject.artifact) != self.victim:
            return super().finish()
        result = self._run(self.started.popleft())
        self.ends_by = ""
        return result

    def _run(self, job: Job) -> JobResult:
        path = os.pathsep.join([str(HOSTILE), os.environ.get("PYTHONPATH", "")])
        environment = {"PYTHONPATH": path, "TRIMTAB_TEST_MODEL_DOES": self.ends_by}
        finished: queue.SimpleQueue[ChildFinished] = queue.SimpleQueue()
        max_job_s = HANG_LIMIT_S if self.ends_by == "hang" else MAX_WAIT_S
        runner = ProcessRunner(self.folder, finished.put, max_job_s)
        settings = job.settings.within(MAX_MEMORY_BYTES)
        with mock.patch.dict(os.environ, environment):
            runner.start(job.model_copy(update={"settings": settings}))
        return finished.get(timeout=MAX_WAIT_S).result
