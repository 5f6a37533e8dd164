"""Peak memory of a process from /proc: VmHWM, never ru_maxrss.

`ru_maxrss` of a fresh child still holds its parent's peak, because fork and exec inherit it; VmHWM
belongs to the new address space. Source: proc(5), `VmHWM: Peak resident set size`; writing 5 to
clear_refs resets it to the present size.
"""

from __future__ import annotations

from pathlib import Path


def read_status_bytes(field: str, proc_root: Path = Path("/proc"), pid: str = "self") -> int | None:
    """One field of /proc/PID/status in bytes, such as "VmHWM"; None where it cannot be read."""
    try:
        lines = (proc_root / pid / "status").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        if name == field:
            words = rest.split()
            return int(words[0]) * 1024 if len(words) == 2 and words[1] == "kB" else None
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
