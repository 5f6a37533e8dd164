"""Putting the real parts together; nothing else picks them."""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import shutil
import uuid
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab_agent import __version__, hardware
from trimtab_agent.children import ProcessRunner
from trimtab_agent.config import LoadedConfig
from trimtab_agent.daemon import Daemon, Parts
from trimtab_agent.deployments import Deployments
from trimtab_agent.desires import Desires
from trimtab_agent.disk import Disk
from trimtab_agent.energy.base import NoSensor
from trimtab_agent.energy.table import find_sensor
from trimtab_agent.events import Event, HookFinished
from trimtab_agent.hooks import HookRunner, NoHooks, ProcessHooks
from trimtab_agent.in_use import NobodyAsks
from trimtab_agent.journal import Journal
from trimtab_agent.link import PahoLink, Subscription, Will
from trimtab_agent.measure.jobs import Settings
from trimtab_agent.meter_feed import MeterFeed
from trimtab_agent.outbox import Outbox
from trimtab_agent.runtimes.table import installed_runtimes
from trimtab_agent.store import Store
from trimtab_agent.tools import Identity, Tools
from trimtab_agent.trials import Trials
from trimtab_agent.workbench import Workbench
from trimtab_protocol.errors import ConfigError, ErrorCode
from trimtab_protocol.manifest import Payload
from trimtab_protocol.messages import (
    MAX_GET_INDICES,
    Birth,
    Get,
    Presence,
    RuntimeFact,
    Status,
    encode,
)
from trimtab_protocol.topics import DEVICE_READS, Leaf, chunk_filter, device_topic

if TYPE_CHECKING:
    from trimtab_agent.local.api import LocalApi
    from trimtab_agent.local.board import Board

MEMORY_SHARE = 0.75
"""Of the machine's memory a child may take, unless the settings say otherwise."""


def lock_state_dir(folder: Path) -> int:
    """Own a state folder for as long as the process lives.

    Returns:
        The open file that holds the lock.

    Raises:
        ConfigError: `config.in_use`, another agent owns it; or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"state_dir {folder} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigError(
            f"another agent is running on state_dir {folder}: stop it, or use another folder",
            code=ErrorCode.CONFIG_IN_USE,
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def read_identity(loaded: LoadedConfig) -> tuple[hardware.Hardware, Identity]:
    """What this device is."""
    facts = hardware.read_hardware()
    threads = loaded.config.measure.threads
    device_class = loaded.config.device_class or hardware.derive_device_class(facts, threads)
    return facts, Identity(device_class, installed_runtimes(), facts.memory_total_bytes)


def measure_settings(loaded: LoadedConfig, identity: Identity) -> Settings:
    """How children run on this device."""
    measure = loaded.config.measure
    memory = measure.max_memory_bytes or int((identity.memory_total_bytes or 0) * MEMORY_SHARE)
    return Settings(
        device_class=identity.device_class,
        threads=measure.threads,
        is_spinning_allowed=measure.is_spinning_allowed,
        affinity=measure.affinity,
        lock=measure.lock,
        max_memory_bytes=memory,
        samples_dir=str(loaded.state_dir / "samples") if measure.max_samples_bytes else None,
        max_samples_bytes=measure.max_samples_bytes,
        meter=None if loaded.config.meter is None else str(loaded.config.meter.path),
    )


def make_meter_feed(loaded: LoadedConfig) -> AbstractContextManager[object]:
    """What listens to the meter's topic while it is entered; nothing where no topic is configured.

    Raises:
        ConfigError: The file for what arrives cannot be made.
    """
    meter = loaded.config.meter
    if meter is None or meter.topic is None:
        return nullcontext()
    return MeterFeed(loaded, meter)


def build_daemon(loaded: LoadedConfig) -> tuple[Daemon, queue.SimpleQueue[Event]]:
    """The agent with its real parts, and the queue that `Stop` goes into."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    root, disk = loaded.state_dir, Disk()
    facts, identity = read_identity(loaded)
    birth = _make_birth(loaded, facts, identity)
    link = _make_link(loaded, birth, events)
    store = Store(root, disk)
    children = ProcessRunner(root / "jobs", events.put, loaded.config.measure.max_job_s)
    site, device = loaded.credentials.site, loaded.credentials.device

    def ask(payload: Payload, indices: list[int]) -> None:
        topic = device_topic(site, device, Leaf.GET)
        for start in range(0, len(indices), MAX_GET_INDICES):
            part = tuple(indices[start : start + MAX_GET_INDICES])
            get = Get(sha256=payload.sha256, chunk_bytes=payload.chunk_bytes, indices=part)
            link.publish(topic, encode(get), qos=1, is_retained=False)

    reserve = loaded.config.reserve_disk_bytes
    board = _make_board(loaded)
    tools = Tools(
        store=store,
        disk=disk,
        outbox=Outbox(root / "outbox", disk),
        bench=Workbench(store, children, ask),
        settings=measure_settings(loaded, identity),
        fetch=loaded.config.fetch,
        identity=identity,
        trusted_keys=loaded.trusted_keys,
        free_disk_bytes=lambda: max(0, shutil.disk_usage(root).free - reserve),
        max_store_bytes=loaded.config.max_store_bytes,
        hooks=make_hooks(loaded, events),
        in_use=board or NobodyAsks(),
    )
    cache_bytes = loaded.config.max_payload_cache_bytes
    marker = root / "was_connected"
    journal = Journal(tools)
    parts = Parts(
        site=site,
        device=device,
        birth=birth,
        tools=tools,
        journal=journal,
        deployments=Deployments(tools, journal, cache_bytes),
        trials=Trials(tools, journal, cache_bytes),
        desires=Desires(root / "desired.json", disk),
        link=link,
        events=events,
        first_connect_timeout_s=loaded.config.mqtt.first_connect_timeout_s,
        was_ever_connected=marker.exists(),
        remember_connected=lambda: disk.write_file(marker, b""),
        local=_make_local(loaded, board, tools, journal),
    )
    return Daemon(parts), events


def configure_logging(level: str) -> None:
    """Log to stderr; systemd adds the time."""
    logging.basicConfig(level=level.upper(), format="%(levelname).1s %(name)s: %(message)s")


def _make_board(loaded: LoadedConfig) -> Board | None:
    """What applications and decisions share; None if no socket is configured."""
    if loaded.config.local.socket is None:
        return None
    from trimtab_agent.local.board import Board  # noqa: PLC0415 - memory, where it is not used

    return Board(loaded.config.local.max_hold_minutes * 60)


def _make_local(
    loaded: LoadedConfig, board: Board | None, tools: Tools, journal: Journal
) -> LocalApi | None:
    local = loaded.config.local
    if board is None or local.socket is None:
        return None
    from trimtab_agent.local.api import LocalApi  # noqa: PLC0415 - memory, where it is not used

    return LocalApi(local, loaded.folder / local.socket, board, tools.store, journal)


def _make_birth(loaded: LoadedConfig, facts: hardware.Hardware, identity: Identity) -> Birth:
    threads = loaded.config.measure.threads
    meter = loaded.config.meter
    sensor = find_sensor(meter=None if meter is None else meter.path)
    return Birth(
        device_class=identity.device_class,
        boot_id=facts.boot_id,
        session_id=uuid.uuid4().hex,
        agent_version=__version__,
        fingerprint=hardware.fingerprint(facts, threads, identity.runtimes),
        board=facts.board,
        cpu=facts.cpu,
        cores=facts.cores,
        threads=threads,
        machine=facts.machine,
        kernel=facts.kernel,
        memory_total_bytes=facts.memory_total_bytes,
        runtimes=tuple(RuntimeFact.model_validate(row) for row in identity.runtimes),
        sensors=() if isinstance(sensor, NoSensor) else (sensor.facts().name,),
        sent_at=0.0,
    )


def make_hooks(loaded: LoadedConfig, events: queue.SimpleQueue[Event]) -> HookRunner:
    """The hooks of the configured folder; without one nobody is asked."""
    folder = loaded.config.hooks_dir
    if folder is None:
        return NoHooks()
    return ProcessHooks(
        Path(folder), lambda result: events.put(HookFinished(result)), loaded.config.max_hook_s
    )


def _make_link(loaded: LoadedConfig, birth: Birth, events: queue.SimpleQueue[Event]) -> PahoLink:
    site, device = loaded.credentials.site, loaded.credentials.device
    offline = Status(presence=Presence.OFFLINE, boot_id=birth.boot_id, session_id=birth.session_id)
    subscriptions = (
        *(Subscription(device_topic(site, device, leaf), 1) for leaf in DEVICE_READS),
        Subscription(chunk_filter(site, device), loaded.config.mqtt.chunk_qos),
    )
    will = Will(device_topic(site, device, Leaf.STATUS), encode(offline))
    return PahoLink(loaded.credentials, loaded.config.mqtt, subscriptions, will, events.put)
