"""What a process costs while it waits, and what else the machine does meanwhile, from /proc.

PSS shares each page among the processes that map it; USS is what would be free if this process
ended; RSS counts every page in full. Sources: proc(5), `smaps_rollup`, `stat` (fields 14 and 15),
`status`, and /proc/stat.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
PACKAGE_FOLDER = "site-packages/"

FORBIDDEN = ("numpy", "onnxruntime", "ai_edge_litert", "tflite_runtime", "tensorflow", "torch")
"""Top-level packages that a resident process never loads."""


@dataclass(frozen=True)
class Idle:
    """A process over some seconds."""

    seconds: float
    rss_bytes: int
    pss_bytes: int
    uss_bytes: int
    threads: int
    cpu_share: float
    wake_ups_per_s: float
    libraries: tuple[str, ...]

    @property
    def forbidden(self) -> tuple[str, ...]:
        """Those of its libraries that should not be there."""
        return tuple(name for name in self.libraries if name.split(".")[0] in FORBIDDEN)


@dataclass(frozen=True)
class MachineUse:
    """The machine since it started, or between two looks; seconds are of one core."""

    elapsed_s: float
    busy_s: float
    steal_s: float
    own_s: float

    def since(self, before: MachineUse) -> MachineUse:
        """What happened between two looks."""
        return MachineUse(
            self.elapsed_s - before.elapsed_s,
            self.busy_s - before.busy_s,
            self.steal_s - before.steal_s,
            self.own_s - before.own_s,
        )

    @property
    def others_cores(self) -> float:
        """Cores kept busy by whom we did not start."""
        return max(0.0, self.busy_s - self.own_s) / max(self.elapsed_s, 1e-9)

    @property
    def steal_ratio(self) -> float:
        """Share of the machine's time that the hypervisor took."""
        return self.steal_s / max(self.elapsed_s * (os.cpu_count() or 1), 1e-9)


def watch_idle(pid: int, seconds: float) -> Idle:
    """Look at a process now and after so many seconds; memory is what it has at the end."""
    began, cpu_s, switches = time.monotonic(), _cpu_s(pid), _switches(pid)
    time.sleep(seconds)
    elapsed_s = time.monotonic() - began
    memory = _fields(PROC / str(pid) / "smaps_rollup")
    return Idle(
        seconds=elapsed_s,
        rss_bytes=memory["Rss"] * 1024,
        pss_bytes=memory["Pss"] * 1024,
        uss_bytes=(memory["Private_Clean"] + memory["Private_Dirty"]) * 1024,
        threads=len(list((PROC / str(pid) / "task").iterdir())),
        cpu_share=(_cpu_s(pid) - cpu_s) / elapsed_s,
        wake_ups_per_s=(_switches(pid) - switches) / elapsed_s,
        libraries=loaded_packages(pid),
    )


def read_pss_bytes(pid: int) -> int:
    """PSS at this instant."""
    return _fields(PROC / str(pid) / "smaps_rollup")["Pss"] * 1024


def loaded_packages(pid: int) -> tuple[str, ...]:
    """Installed packages of which the process has a binary part mapped."""
    lines = (PROC / str(pid) / "maps").read_text().splitlines()
    found = {
        line.split(PACKAGE_FOLDER, 1)[1].split("/", 1)[0]
        for line in lines
        if PACKAGE_FOLDER in line
    }
    return tuple(sorted(found))


def watch_machine() -> MachineUse:
    """The machine until now. What this process's children used counts once they have ended."""
    row = (PROC / "stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(text) for text in row[:8])
    ticks = os.sysconf("SC_CLK_TCK")
    own = os.times()
    return MachineUse(
        elapsed_s=time.monotonic(),
        busy_s=(user + nice + system + irq + softirq) / ticks,
        steal_s=steal / ticks,
        own_s=own.user + own.system + own.children_user + own.children_system,
    )


def _cpu_s(pid: int) -> float:
    after_name = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def _switches(pid: int) -> int:
    """Voluntary ones of all threads: each is a wait that ended."""
    tasks = (PROC / str(pid) / "task").iterdir()
    return sum(_fields(task / "status")["voluntary_ctxt_switches"] for task in tasks)


def _fields(path: Path) -> dict[str, int]:
    rows = (line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    return {
        name: int(value.split()[0])
        for name, value in rows
        if value.split()[:1] and value.split()[0].isdigit()
    }
