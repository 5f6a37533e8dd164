"""The files that a mosquitto child reads: configuration, rules, passwords. Text in, text out.

Every value below that is not obvious was learned the hard way:
    - `max_queued_messages 0` ("unlimited") makes mosquitto 2.0.11 disconnect a client for every
      denied PUBLISH, so the limit is large and never 0.
    - `set_tcp_nodelay` is off by default; together with delayed ACKs that costs 40 ms per message.
    - Retained messages and sessions are saved on SIGTERM and every `autosave_interval` only.
    - `use_username_as_clientid` ties a session to the login.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

MAX_PACKET_BYTES = 2 * 1024 * 1024


def mosquitto_conf(folder: Path, host: str, port: int, user: str | None) -> str:
    """The configuration of the child.

    Args:
        folder: Where its files are.
        host: Address to listen on.
        port: Port to listen on.
        user: Who mosquitto is to stay when it is started as root; None otherwise.
    """
    lines = [
        f"listener {port} {host}",
        "allow_anonymous false",
        "use_username_as_clientid true",
        f"password_file {folder / 'passwords'}",
        f"acl_file {folder / 'acl'}",
        "persistence true",
        f"persistence_location {folder}/",
        "autosave_interval 30",
        "persistent_client_expiration 7d",
        "set_tcp_nodelay true",
        "max_inflight_messages 0",
        "max_queued_messages 100000",
        f"max_packet_size {MAX_PACKET_BYTES}",
        "sys_interval 0",
        "log_dest stdout",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "connection_messages false",
    ]
    if user is not None:
        lines.append(f"user {user}")
    return "\n".join(lines) + "\n"


def password_file(verifiers: Mapping[str, str]) -> str:
    """The password file: one `user:verifier` per line."""
    return "".join(f"{user}:{verifier}\n" for user, verifier in sorted(verifiers.items()))
