"""`trimtab-agent doctor`: what this device lacks for honest measurements, and how to mend it.

Each finding says what was found, why it matters and the exact command. It changes nothing. Three
levels: *missing* (the agent cannot do its work), *advice* (it can, and figures will be worse or
fewer), *ok*.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from trimtab_agent.config import LoadedConfig, MeasureSettings, load_config
from trimtab_agent.energy.base import NoSensor
from trimtab_agent.energy.external import rotated
from trimtab_agent.energy.table import find_sensor
from trimtab_agent.heat import preflight
from trimtab_agent.heat.throttle import LIVE_BITS, STICKY_SHIFT, Ask, ask_throttled
from trimtab_agent.measure.process_memory import reset_peak
from trimtab_agent.pi_firmware import find_mailbox, is_mailbox_usable
from trimtab_agent.runtimes.table import installed_runtimes
from trimtab_protocol.errors import ConfigError
from trimtab_protocol.messages import RuntimeFact

CONNECT_TIMEOUT_S = 3.0
MIN_FREE_DISK_BYTES = 256 * 1024 * 1024
PIP = f"{sys.prefix}/bin/pip install"
SERVICE = "trimtab-agent.service"
SERVICE_FOLDERS = ("etc/systemd/system", "lib/systemd/system", "usr/lib/systemd/system")


class Level(str, Enum):
    """How much a finding matters."""

    OK = "ok"
    MISSING = "missing"  # the agent cannot do its work
    ADVICE = "advice"  # it can, and figures will be worse or fewer


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        level: How much it matters.
        name: What it is, in two or three words.
        found: What is there.
        why: Why it matters; empty when all is well.
        fix: The command, or what to do by hand; empty when there is nothing to do.
    """

    level: Level
    name: str
    found: str
    why: str = ""
    fix: str = ""


def _energy(meter: Path | None) -> str | NoSensor:
    sensor = find_sensor(meter=meter)
    return sensor if isinstance(sensor, NoSensor) else sensor.facts().name


def _numpy_version() -> str | None:
    try:
        return importlib.metadata.version("numpy")
    except importlib.metadata.PackageNotFoundError:
        return None


def _connect(host: str, port: int) -> None:
    socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()


@dataclass(frozen=True)
class Device:
    """What the doctor looks at; tests pass their own.

    Args:
        root: Holds sys/, proc/, dev/ and etc/.
        is_32_bit: Of Python, not of the kernel: a 64-bit kernel often runs a 32-bit system.
        energy: The name of the energy sensor, or why there is none; told of a configured meter.
        ask: The Raspberry Pi's firmware, where there is one.
        connect: Opens and closes a TCP connection.
    """

    root: Path = Path("/")
    is_32_bit: bool = sys.maxsize < 2**32
    runtimes: Callable[[], tuple[RuntimeFact, ...]] = installed_runtimes
    numpy_version: Callable[[], str | None] = _numpy_version
    energy: Callable[[Path | None], str | NoSensor] = _energy
    ask: Ask | None = None
    connect: Callable[[str, int], None] = _connect


def examine(device: Device, config: Path | None = None) -> tuple[Finding, ...]:
    """Look at everything.

    Args:
        device: What to look at.
        config: The agent's settings; without them broker, keys and credentials are left out.
    """
    loaded, settings = _settings(config)
    measure = loaded.config.measure if loaded is not None else MeasureSettings()
    folder = loaded.state_dir if loaded is not None else Path.cwd()
    return (
        *settings,
        *(_broker(device, loaded) if loaded is not None else ()),
        *_runtimes(device),
        _lock(Path(measure.lock)),
        _sensor(device, loaded),
        *_state_of_the_moment(device, measure.affinity),
        *_since_start(device),
        _peak_memory(device.root),
        _disk(folder),
        _service(device.root),
    )


def is_healthy(findings: tuple[Finding, ...]) -> bool:
    """Whether nothing is missing."""
    return all(finding.level is not Level.MISSING for finding in findings)


def render(findings: tuple[Finding, ...]) -> str:
    """For a person: what must be mended first."""
    order = (Level.MISSING, Level.ADVICE, Level.OK)
    lines = []
    for finding in sorted(findings, key=lambda one: order.index(one.level)):
        lines.append(f"{finding.level.value:8} {finding.name}: {finding.found}")
        lines += [f"         why: {finding.why}"] if finding.why else []
        lines += [f"         fix: {finding.fix}"] if finding.fix else []
    return "\n".join(lines)


def render_json(findings: tuple[Finding, ...]) -> str:
    """For a program."""
    rows = [{**asdict(one), "level": one.level.value} for one in findings]
    return json.dumps({"is_healthy": is_healthy(findings), "findings": rows}, indent=2)


def _settings(path: Path | None) -> tuple[LoadedConfig | None, list[Finding]]:
    if path is None:
        return None, []
    name = "configuration"
    try:
        loaded = load_config(path)
    except ConfigError as error:
        why = "the agent does not start with these settings"
        fix = f"mend what the line above names in {path} or in the file it points to"
        return None, [Finding(Level.MISSING, name, error.message, why, fix)]
    credentials = loaded.folder / loaded.config.credentials
    found = (
        f"{path} with {len(loaded.trusted_keys)} trusted key(s), device {loaded.credentials.device}"
    )
    findings = [Finding(Level.OK, name, found)]
    if credentials.stat().st_mode & 0o044:
        why = "whoever reads the password can speak to the broker as this device"
        fix = f"sudo chmod 600 {credentials}"
        text = f"{credentials} can be read by other users"
        findings.append(Finding(Level.ADVICE, "credentials", text, why, fix))
    return loaded, findings


def _broker(device: Device, loaded: LoadedConfig) -> list[Finding]:
    host, port = loaded.credentials.mqtt_host, loaded.credentials.mqtt_port
    try:
        device.connect(host, port)
    except OSError as error:
        found = f"{host}:{port} cannot be reached: {error}"
        why = "models and measurements travel through the broker"
        fix = (
            f"ping {host}; is `trimtab-deploy serve --mqtt-host ADDRESS` running there, with an "
            "address that this device can reach, and does its firewall let the port through?"
        )
        return [Finding(Level.MISSING, "broker", found, why, fix)]
    return [Finding(Level.OK, "broker", f"{host}:{port} accepts connections")]


def _runtimes(device: Device) -> Iterator[Finding]:
    found = device.runtimes()
    packages = "tflite-runtime 'numpy<2'" if device.is_32_bit else "onnxruntime ai-edge-litert"
    bits = "32-bit" if device.is_32_bit else "64-bit"
    names = ", ".join(f"{row.package} {row.version}" for row in found)
    if not found:
        why = "without a runtime no model can be measured or probed"
        if device.is_32_bit:
            why += "; LiteRT and ONNX Runtime have no packages for a 32-bit system"
        text = f"none is installed ({bits} {platform.machine()})"
        fix = f"{PIP} {packages}"
        yield Finding(Level.MISSING, "runtime", text, why, fix)
        return
    yield Finding(Level.OK, "runtime", f"{names} ({bits})")
    numpy = device.numpy_version() or ""
    if any(row.package == "tflite-runtime" for row in found) and not numpy.startswith("1."):
        why = "tflite-runtime was built for numpy 1 and fails in its first interpreter with another"
        yield Finding(
            Level.MISSING, "numpy", f"numpy {numpy or 'is absent'}", why, f"{PIP} 'numpy<2'"
        )


def _lock(path: Path) -> Finding:
    name, why = "measuring lock", "two measurements at once disturb each other, so they take turns"
    if not path.exists():
        is_usable = os.access(path.parent, os.W_OK)
        fix = f'sudo install -d -m 1777 {path.parent}, or set another `lock` under "[measure]"'
        if is_usable:
            return Finding(Level.OK, name, f"{path} can be made")
        return Finding(Level.MISSING, name, f"{path} cannot be made", why, fix)
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Finding(Level.OK, name, f"{path} is taken: something is being measured right now")
    except OSError as error:
        text = f"{path} cannot be opened: {error.strerror}"
        return Finding(Level.MISSING, name, text, why, f"sudo rm {path}")
    return Finding(Level.OK, name, f"{path} is free")


def _sensor(device: Device, loaded: LoadedConfig | None) -> Finding:
    name, why = "energy sensor", "energy per inference is absent from every report"
    meter = loaded.config.meter if loaded is not None else None
    found = device.energy(None if meter is None else meter.path)
    if meter is not None and not isinstance(found, NoSensor) and _is_empty(meter.path):
        fix = "is the meter on, and the topic right? see `journalctl -u trimtab-agent`"
        return Finding(Level.ADVICE, name, f"{found}: nothing has arrived yet", why, fix)
    if not isinstance(found, NoSensor):
        return Finding(Level.OK, name, found)
    if meter is not None:
        fix = "start what writes it, or take [meter] out of the configuration"
        if meter.topic is not None:
            fix = "sudo systemctl start trimtab-agent   # it writes what arrives on the topic"
        return Finding(Level.ADVICE, name, found.reason, why, fix)
    counter = device.root / "sys/class/powercap/intel-rapl:0/energy_uj"
    fix = "nothing to type: an INA219 or INA226 in the supply line makes it measurable"
    if counter.exists() and not _is_readable(counter):
        fix = "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj (until the next start)"
    elif find_mailbox(device.root) is not None and not is_mailbox_usable(device.root):
        fix = "sudo usermod -aG video $USER, then log in again (the service: Group video, see docs)"
    return Finding(Level.ADVICE, name, found.reason, why, fix)


def _is_empty(meter: Path) -> bool:
    files = (meter, rotated(meter))
    return not any(path.exists() and path.stat().st_size for path in files)


def _state_of_the_moment(device: Device, cpus: tuple[int, ...]) -> Iterator[Finding]:
    complaints = preflight(device.root, cpus, device.ask)
    why = "figures taken now are worse than the device can do, or differ from run to run"
    for complaint in complaints:
        found, _, fix = complaint.rpartition(": ")
        yield Finding(Level.ADVICE, "state now", found, why, fix)
    if not complaints:
        yield Finding(Level.OK, "state now", "cool, idle, nothing throttled, no clock that changes")


def _since_start(device: Device) -> Iterator[Finding]:
    if device.ask is None:
        return
    name = "power and heat"
    bits, reason = ask_throttled(device.ask)
    if bits is None:
        why = "the Pi's firmware alone knows of under-voltage and throttling"
        fix = "sudo usermod -aG video $USER, then log in again; then try `vcgencmd get_throttled`"
        yield Finding(Level.ADVICE, name, reason or "", why, fix)
        return
    past = [what for bit, what in LIVE_BITS.items() if bits >> (bit + STICKY_SHIFT) & 1]
    if past:
        found = f"since the last start there has been: {', '.join(past)}"
        why = "a Pi short of power or too hot runs at a fraction of its clock"
        fix = "use the Pi's own power supply and a short cable; give it a heat sink and a fan"
        yield Finding(Level.ADVICE, name, found, why, fix)


def _peak_memory(root: Path) -> Finding:
    name = "peak memory"
    if reset_peak(root / "proc"):
        return Finding(Level.OK, name, "/proc/self/clear_refs can be written")
    why = "the peak of the inference alone cannot be told from the peak of loading"
    fix = "nothing to type: this kernel lacks CONFIG_PROC_PAGE_MONITOR, or a container forbids it"
    return Finding(Level.ADVICE, name, "/proc/self/clear_refs cannot be written", why, fix)


def _disk(folder: Path) -> Finding:
    there = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / 1e6:,.0f} MB free for {folder}"
    if free >= MIN_FREE_DISK_BYTES:
        return Finding(Level.OK, "disk", found)
    why = "two whole models must fit: the one that runs and the one that comes"
    fix = "sudo apt clean; du -xh / 2>/dev/null | sort -h | tail   # shows what is large"
    return Finding(Level.MISSING, "disk", found, why, fix)


def _service(root: Path) -> Finding:
    if any((root / folder / SERVICE).exists() for folder in SERVICE_FOLDERS):
        return Finding(Level.OK, "service", f"{SERVICE} is installed")
    why = "without it the agent does not come back after a power cut"
    fix = f"sudo cp {SERVICE} /etc/systemd/system/ && sudo systemctl enable --now trimtab-agent"
    return Finding(Level.ADVICE, "service", f"{SERVICE} is not installed", why, fix)


def _is_readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True
