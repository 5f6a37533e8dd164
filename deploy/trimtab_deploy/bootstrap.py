"""Puts the real parts of the control plane together and runs them until a signal comes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import uvicorn

from trimtab_deploy import steps
from trimtab_deploy.api.app import make_app
from trimtab_deploy.api.parts import Parts
from trimtab_deploy.broker.acl import CONTROL_PLANE_USER
from trimtab_deploy.broker.choose import BrokerChoice, build_broker
from trimtab_deploy.broker.mosquitto import stop_previous
from trimtab_deploy.broker.port import Broker
from trimtab_deploy.changes import Changes
from trimtab_deploy.conductor import Conductor
from trimtab_deploy.config import Settings
from trimtab_deploy.delivery import Delivery
from trimtab_deploy.files import write_atomically
from trimtab_deploy.folder import (
    ServerFile,
    admin_token,
    choose_port,
    listen,
    locked_folder,
    remember_ports,
)
from trimtab_deploy.inbox import Inbox
from trimtab_deploy.mqtt import MqttSession
from trimtab_deploy.payloads import PayloadStore
from trimtab_deploy.store import devices
from trimtab_deploy.store.sqlite import Database
from trimtab_deploy.systemd_notify import notify
from trimtab_protocol.api import ServerFacts
from trimtab_protocol.topics import DEVICE_WRITES, fleet_filter

LOG = logging.getLogger("trimtab.deploy")
READY_TIMEOUT_S = 10.0


def serve(folder: Path, settings: Settings) -> int:
    """Run a control plane until SIGTERM or SIGINT.

    Args:
        folder: Its data folder.
        settings: Its settings.

    Returns:
        The exit code: 0 after a signal, 1 when a part of it failed.

    Raises:
        ConfigError: The folder is in use, a port is taken, or a setting cannot be followed.
        StorageError: The folder cannot be written.
    """
    with locked_folder(folder):
        (folder / "server.json").unlink(missing_ok=True)
        return asyncio.run(_serve(folder, settings))


async def _serve(folder: Path, settings: Settings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        database = Database(folder / "trimtab.db")
        stack.callback(database.close)
        broker = await stack.enter_async_context(_running_broker(folder, settings, database))
        control = ControlPlane(folder, settings, database, broker)
        return await control.run(stop)


class ControlPlane:
    """The parts and the tasks that run them.

    Args:
        folder: The data folder.
        settings: What was set.
        database: Open.
        broker: Started.
    """

    def __init__(
        self, folder: Path, settings: Settings, database: Database, broker: Broker
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._database = database
        self._broker = broker
        self._errands: set[asyncio.Task[None]] = set()
        site, clock = settings.site, time.time
        self.session = MqttSession(
            broker.address,
            CONTROL_PLANE_USER,
            [fleet_filter(site, leaf) for leaf in DEVICE_WRITES],
            on_message=lambda incoming: self.inbox.put(incoming),  # noqa: PLW0108 - made below
            on_ready=lambda: self._run_errand(self.conductor.publish_everything()),
        )
        self.changes = Changes()
        self.payloads = PayloadStore(folder / "payloads", settings.max_payload_bytes)
        self.conductor = Conductor(
            site=site,
            database=database,
            publisher=self.session,
            clock=clock,
            changes=self.changes,
        )
        self.delivery = Delivery(
            site=site,
            payloads=self.payloads,
            publisher=self.session,
            may_fetch=self._may_fetch,
        )
        self.inbox = Inbox(
            site=site,
            database=database,
            publisher=self.session,
            clock=clock,
            on_get=self.delivery.request,
            on_birth=lambda device: self._run_errand(self.conductor.ask_again(device)),
            on_change=self.conductor.kick,
        )

    async def run(self, stop: asyncio.Event) -> int:
        """Serve until told to stop, or until a part fails."""
        await self._database.run(devices.forget_presence)
        port = choose_port(self._folder, "http", self._settings.http_host, self._settings.http_port)
        with listen(self._settings.http_host, port) as http_socket:
            server = _QuietServer(
                uvicorn.Config(
                    make_app(self._api_parts()),
                    log_level="warning",
                    lifespan="off",
                    timeout_graceful_shutdown=2,
                )
            )
            tasks = [
                asyncio.create_task(self.session.run(), name="mqtt"),
                asyncio.create_task(self.inbox.run(), name="inbox"),
                asyncio.create_task(self.conductor.run(), name="conductor"),
                asyncio.create_task(server.serve(sockets=[http_socket]), name="http"),
            ]
            waiting = asyncio.create_task(stop.wait(), name="signal")
            try:
                await self._announce(port, server)
                done, _ = await asyncio.wait({waiting, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await self._wind_down(server, [waiting, *tasks])
        return _exit_code(done)

    async def _announce(self, port: int, server: uvicorn.Server) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_TIMEOUT_S):
                await self.session.is_ready.wait()
                while not server.started:
                    await asyncio.sleep(0.01)
        if not self.session.is_ready.is_set():
            LOG.warning("the broker does not answer yet; going on and trying again")
        facts = ServerFile(
            http_url=f"http://{_url_host(self._settings.http_host)}:{port}",
            mqtt_host=self._settings.device_mqtt_host(),
            mqtt_port=self._broker.address.port,
            broker=self._broker.product,
            pid=os.getpid(),
        )
        remember_ports(self._folder, {"http": port, "mqtt": facts.mqtt_port})
        write_atomically(self._folder / "server.json", facts.model_dump_json(indent=2) + "\n")
        LOG.info("%s, broker %s on port %s", facts.http_url, facts.broker, facts.mqtt_port)
        notify("READY=1")

    async def _wind_down(self, server: uvicorn.Server, tasks: list[asyncio.Task[Any]]) -> None:
        notify("STOPPING=1")
        (self._folder / "server.json").unlink(missing_ok=True)
        server.should_exit = True
        http = next(task for task in tasks if task.get_name() == "http")
        await asyncio.wait([http], timeout=5.0)
        await self.delivery.close()
        for task in (*tasks, *self._errands):
            task.cancel()
        await asyncio.gather(*tasks, *self._errands, return_exceptions=True)
        await self.session.close()

    def _api_parts(self) -> Parts:
        return Parts(
            token=admin_token(self._folder),
            facts=ServerFacts(
                version=_own_version(),
                site=self._settings.site,
                broker=self._broker.product,
                mqtt_host=self._settings.device_mqtt_host(),
                mqtt_port=self._broker.address.port,
            ),
            database=self._database,
            payloads=self.payloads,
            conductor=self.conductor,
            changes=self.changes,
            broker=self._broker,
            clock=time.time,
            trusted_keys=self._settings.keys(),
        )

    async def _may_fetch(self, device: str, sha256: str) -> bool:
        return await self._database.run(lambda row: steps.may_fetch(row, device, sha256))

    def _run_errand(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)


class _QuietServer(uvicorn.Server):
    """uvicorn without its own signal handlers: one place decides when to stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _running_broker(
    folder: Path, settings: Settings, database: Database
) -> AsyncIterator[Broker]:
    broker_folder = folder / "broker"
    await asyncio.to_thread(stop_previous, broker_folder)
    is_ours = settings.broker != "external"
    choice = BrokerChoice(
        folder=broker_folder,
        host=settings.mqtt_host,
        port=choose_port(folder, "mqtt", settings.mqtt_host, settings.mqtt_port) if is_ours else 0,
        site=settings.site,
        external=None if settings.external is None else settings.external.address(),
    )
    broker = build_broker(settings.broker, choice, await database.run(devices.verifiers))
    try:
        await broker.start()
        yield broker
    finally:
        await broker.stop()


def _exit_code(done: set[asyncio.Task[Any]]) -> int:
    failed = [task for task in done if task.get_name() != "signal"]
    for task in failed:
        LOG.error("%s ended: %r", task.get_name(), task.exception())
    return 1 if failed else 0


def _url_host(host: str) -> str:
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - told to clients on this machine
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _own_version() -> str:
    try:
        return version("trimtab")
    except PackageNotFoundError:
        return "0"
