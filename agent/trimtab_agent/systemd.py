"""Telling systemd how we are: sd_notify(3), a datagram to $NOTIFY_SOCKET.

The watchdog is fed by the decision loop itself, so that a loop that hangs is noticed.
"""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send one state, such as "READY=1"; does nothing outside systemd."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(state.encode(), address)
        except OSError:
            return  # systemd went away; nothing here depends on it
