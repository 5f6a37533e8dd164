"""mosquitto as a child process: started, told about devices by SIGHUP, restarted when it dies."""

from __future__ import annotations

import asyncio
import getpass
import logging
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from trimtab_deploy.broker.acl import CONTROL_PLANE_USER, mosquitto_acl
from trimtab_deploy.broker.child import start_child, stop_child, stop_leftover
from trimtab_deploy.broker.mosquitto_files import mosquitto_conf, password_file
from trimtab_deploy.broker.port import BrokerAddress, Login
from trimtab_deploy.broker.probe import wait_until_can_log_in
from trimtab_deploy.files import write_atomically
from trimtab_deploy.passwords import make_password, make_verifier
from trimtab_protocol.errors import ConfigError, StorageError, TransientError

LOG = logging.getLogger("trimtab.deploy.broker")
START_TIMEOUT_S = 10.0
RELOAD_TIMEOUT_S = 5.0
MAX_RESTART_DELAY_S = 10.0


def find_mosquitto() -> str | None:
    """Path of a mosquitto program, if there is one; Debian keeps it where users do not look."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def stop_previous(folder: Path) -> None:
    """End a child that a killed control plane left behind, so that its port and files are free."""
    folder = folder.resolve()
    stop_leftover(folder / "mosquitto.pid", str(folder / "mosquitto.conf"))


class MosquittoBroker:
    """Owns one mosquitto process and its folder.

    Args:
        program: Path of the mosquitto program.
        folder: Its configuration, passwords and database; made if missing.
        host: Address to listen on.
        port: Port to listen on.
        site: Site whose topics are allowed.
        verifiers: Password verifiers of the devices known so far.
    """

    product = "mosquitto"

    def __init__(
        self,
        *,
        program: str,
        folder: Path,
        host: str,
        port: int,
        site: str,
        verifiers: Mapping[str, str],
    ) -> None:
        self._program = program
        self._folder = folder.resolve()
        self._site = site
        self._verifiers = dict(verifiers)
        self._own = Login(CONTROL_PLANE_USER, make_password())
        # Asks whether the broker is up. Not our own login: a probe has a clean session, and would
        # throw away what the broker has queued for us.
        self._probe = Login(f"{CONTROL_PLANE_USER}_probe", make_password())
        self.address = BrokerAddress(host, port, self._own, speaks_mqtt5=True)
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._reloading = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Process id of the running child."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Write the files, start the child and return when it takes our login.

        Raises:
            ConfigError: It cannot be started, or ends at once (the port is taken).
            StorageError: Its folder cannot be written.
        """
        self._write_files()
        await asyncio.to_thread(stop_previous, self._folder)
        await self._spawn()
        self._watch = asyncio.create_task(self._keep_running())

    async def admit(self, device: str, verifier: str) -> None:
        """Add a device to the password file and wait until mosquitto has read it.

        Raises:
            StorageError: The password file cannot be written.
            TransientError: mosquitto is down or did not reload in time; it will know the device
                after its restart.
        """
        async with self._reloading:
            self._verifiers[device] = verifier
            self._write_passwords()
            await self._reload(device)

    async def _reload(self, device: str) -> None:
        if self._process is None or self._process.returncode is not None:
            raise TransientError(f"the broker is restarting; {device} can log in after that")
        # A second throw-away user tells when the file was read: we do not know the device's
        # password any more, only its verifier.
        witness = Login(f"{CONTROL_PLANE_USER}_witness", make_password())
        self._write_passwords({witness.username: make_verifier(witness.password)})
        self._process.send_signal(signal.SIGHUP)
        host, port = self._local()
        is_known = await wait_until_can_log_in(host, port, witness, RELOAD_TIMEOUT_S)
        self._write_passwords()
        if not is_known:
            raise TransientError(f"the broker did not take up {device} in {RELOAD_TIMEOUT_S} s")

    async def stop(self) -> None:
        """Stop the child; it saves its database first."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._process is not None:
            await stop_child(self._process)
        (self._folder / "mosquitto.pid").unlink(missing_ok=True)

    async def _spawn(self) -> None:
        try:
            self._process = await start_child(
                [self._program, "-c", str(self._conf_path())], self._folder / "mosquitto.log"
            )
        except OSError as error:
            raise ConfigError(f"cannot start {self._program}: {error.strerror}") from error
        write_atomically(self._folder / "mosquitto.pid", str(self._process.pid))
        host, port = self._local()
        ready = asyncio.create_task(wait_until_can_log_in(host, port, self._probe, START_TIMEOUT_S))
        ended = asyncio.create_task(self._process.wait())
        await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        is_ready = ready.done() and ready.result() and self._process.returncode is None
        for task in (ready, ended):
            task.cancel()
        if not is_ready:
            await stop_child(self._process)
            raise ConfigError(
                f"mosquitto does not serve {host}:{port}; is the port taken? Last words: "
                f"{self._last_words()}"
            )

    async def _keep_running(self) -> None:
        delay_s = 0.1
        while self._process is not None:
            await self._process.wait()
            LOG.error("mosquitto ended with %s; restarting it", self._process.returncode)
            await asyncio.sleep(delay_s)
            try:
                await self._spawn()
                delay_s = 0.1
            except (ConfigError, StorageError) as error:
                LOG.error("%s", error)
                delay_s = min(delay_s * 2, MAX_RESTART_DELAY_S)

    def _write_files(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {self._folder}: {error.strerror}") from error
        user = getpass.getuser() if os.geteuid() == 0 else None
        conf = mosquitto_conf(self._folder, self.address.host, self.address.port, user)
        write_atomically(self._conf_path(), conf)
        write_atomically(self._folder / "acl", mosquitto_acl(self._site), mode=0o600)
        self._write_passwords()

    def _write_passwords(self, more: Mapping[str, str] | None = None) -> None:
        own = {row.username: make_verifier(row.password) for row in (self._own, self._probe)}
        content = password_file({**self._verifiers, **own, **(more or {})})
        write_atomically(self._folder / "passwords", content, mode=0o600)

    def _conf_path(self) -> Path:
        return self._folder / "mosquitto.conf"

    def _local(self) -> tuple[str, int]:
        host = self.address.host
        return ("127.0.0.1" if host in ("0.0.0.0", "::") else host), self.address.port  # noqa: S104

    def _last_words(self) -> str:
        try:
            lines = (self._folder / "mosquitto.log").read_text(errors="replace").splitlines()
        except OSError:
            return "(no log)"
        return lines[-1] if lines else "(none)"
