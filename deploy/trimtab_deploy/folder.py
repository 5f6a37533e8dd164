"""The data folder: one process at a time, an admin token, and where the server can be found.

lock          held by the process that serves; holds its pid
admin.token   made once, readable by its owner only
server.json   where the server listens; there only while it serves
ports.json    ports that were chosen freely, so that devices find the same ones again
trimtab.db, payloads/, broker/
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from trimtab_deploy.files import write_atomically
from trimtab_protocol.errors import ConfigError, ErrorCode, StorageError


class ServerFile(BaseModel):
    """Content of server.json."""

    model_config = ConfigDict(frozen=True)

    http_url: str
    mqtt_host: str
    mqtt_port: int
    broker: str
    pid: int


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Own a data folder; made if missing.

    Raises:
        ConfigError: `config.in_use`: another process owns it.
        StorageError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(f"cannot use {folder}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise ConfigError(
                f"the data folder {folder} is in use by the process {holder}: stop that one, or "
                "give this one another --data",
                code=ErrorCode.CONFIG_IN_USE,
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def admin_token(folder: Path) -> str:
    """The token of this server; made at the first call.

    Raises:
        StorageError: It cannot be read or written.
    """
    path = folder / "admin.token"
    try:
        if not path.exists():
            write_atomically(path, secrets.token_urlsafe(32) + "\n", mode=0o600)
        return path.read_text().strip()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error


def read_server_file(folder: Path) -> ServerFile:
    """Where the server of a data folder listens.

    Raises:
        ConfigError: `config.missing`: there is none now.
    """
    path = folder / "server.json"
    try:
        return ServerFile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigError(
            f"no control plane serves {folder} ({path} is not there): start one with "
            f"`trimtab-deploy serve --data {folder}`",
            code=ErrorCode.CONFIG_MISSING,
        ) from error


def await_server_file(
    folder: Path, say: Callable[[str], None], patience_s: float = 5.0
) -> ServerFile:
    """As `read_server_file`, with patience for a control plane that was started just now.

    Args:
        folder: The data folder.
        say: Called once if it has to be waited for.
        patience_s: How long to wait.

    Raises:
        ConfigError: `config.missing`: none began to serve in time.
    """
    until, has_said = time.monotonic() + patience_s, False
    while True:
        try:
            return read_server_file(folder)
        except ConfigError:
            if time.monotonic() > until:
                raise
        if not has_said:
            say(f"waiting up to {patience_s:.0f} s for a control plane to serve {folder}")
            has_said = True
        time.sleep(0.1)


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket.

    Raises:
        ConfigError: The address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(1024)
    except OSError as error:
        found.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return found


def choose_port(folder: Path, name: str, host: str, wanted: int) -> int:
    """The port to use: the wanted one, or for 0 the one of the last run, or any free one.

    Raises:
        ConfigError: The host is not one of this machine.
    """
    if wanted:
        return wanted
    remembered = _remembered(folder).get(name, 0)
    with suppress(ConfigError), listen(host, remembered) as probe:
        return int(probe.getsockname()[1])
    with listen(host, 0) as probe:
        return int(probe.getsockname()[1])


def remember_ports(folder: Path, ports: dict[str, int]) -> None:
    """Remember which ports are in use, for the next start with port 0."""
    write_atomically(folder / "ports.json", json.dumps(ports))


def _remembered(folder: Path) -> dict[str, int]:
    try:
        found = json.loads((folder / "ports.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
