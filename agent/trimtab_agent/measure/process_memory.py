"""Memory of a process from /proc: VmHWM for peaks, never ru_maxrss.

`ru_maxrss` of a fresh child still holds its parent's peak, because fork and exec inherit it; VmHWM
belongs to the new address space. Source: proc(5), `VmHWM: Peak resident set size`; writing 5 to
clear_refs resets it to the present size. RSS, PSS and USS are those of smaps_rollup (Linux 4.14).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Footprint:
    """What a process takes now, in bytes.

    Args:
        rss_bytes: Resident pages.
        pss_bytes: The same, each shared page divided by the number of processes that share it.
        uss_bytes: Pages that no other process has, which its end would give back.
    """

    rss_bytes: int
    pss_bytes: int
    uss_bytes: int


def read_status_bytes(field: str, proc_root: Path = Path("/proc"), pid: str = "self") -> int | None:
    """One field of /proc/PID/status in bytes, such as "VmHWM"; None where it cannot be read."""
    return _read_fields(proc_root / pid / "status").get(field)


def read_footprint(proc_root: Path = Path("/proc"), pid: str = "self") -> Footprint | None:
    """RSS, PSS and USS from /proc/PID/smaps_rollup; None where it cannot be read."""
    fields = _read_fields(proc_root / pid / "smaps_rollup")
    try:
        return Footprint(
            fields["Rss"], fields["Pss"], fields["Private_Clean"] + fields["Private_Dirty"]
        )
    except KeyError:
        return None


def read_involuntary_switches(proc_root: Path = Path("/proc"), pid: str = "self") -> int:
    """How often another process took the CPU away; 0 where it cannot be read."""
    try:
        lines = (proc_root / pid / "status").read_text().splitlines()
    except OSError:
        return 0
    rows = [line.split(":")[1] for line in lines if line.startswith("nonvoluntary_ctxt_switches")]
    return int(rows[0]) if rows else 0


def reset_peak(proc_root: Path = Path("/proc")) -> bool:
    """Set VmHWM back to the present size; False where that is not allowed."""
    try:
        (proc_root / "self" / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _read_fields(path: Path) -> dict[str, int]:
    """Lines such as `Rss:   9084 kB`, in bytes; empty where the file cannot be read."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and words[0].isdigit():
            found[name] = int(words[0]) * 1024
    return found
