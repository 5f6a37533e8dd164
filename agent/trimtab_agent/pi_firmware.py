"""Commands to the Raspberry Pi's firmware, without starting a program for each.

The mailbox (`vcgencmd.c` of raspberrypi/utils): one ioctl on /dev/vcio_gencmd, or /dev/vcio on
older kernels, with a buffer of 32-bit words: total bytes, 0, tag 0x00030080, size of the text,
0, status, then the command; the answer replaces the command. Starting `vcgencmd` instead is the
fallback where the device cannot be used. Who calls must be root or in the group `video`.
Untested on hardware.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

from trimtab_protocol.errors import ErrorCode, StorageError

GET_GENCMD_RESULT = 0x0003_0080
TEXT_BYTES = 4096
HEADER_WORDS = 6
REQUEST = 0xC000_6400 | struct.calcsize("P") << 16
"""_IOWR(100, 0, char *): 0xC0086400 on 64-bit systems, 0xC0046400 on 32-bit ones."""

PROGRAM = "vcgencmd"
VCGENCMD_TIMEOUT_S = 5.0

Ioctl = Callable[[int, int, bytearray], object]


def call_ioctl(handle: int, request: int, buffer: bytearray) -> object:
    """The real one; the buffer is changed in place."""
    return fcntl.ioctl(handle, request, buffer, True)


def firmware_asker(
    root: Path = Path("/"), ioctl: Ioctl = call_ioctl
) -> Callable[[str], str] | None:
    """Whom to ask, as `heat` wants it; None where there is no mailbox and no `vcgencmd`.

    What it returns raises StorageError if the firmware does not answer.
    """
    if find_mailbox(root) is None and shutil.which(PROGRAM) is None:
        return None
    return partial(ask_firmware, root=root, ioctl=ioctl)


def find_mailbox(root: Path = Path("/")) -> Path | None:
    """The mailbox's device, whether or not it may be opened."""
    devices = [root / "dev/vcio_gencmd", root / "dev/vcio"]
    return next((path for path in devices if path.exists()), None)


def is_mailbox_usable(root: Path = Path("/")) -> bool:
    """Whether asking needs no program to be started."""
    found = find_mailbox(root)
    return found is not None and os.access(found, os.R_OK | os.W_OK)


def ask_firmware(command: str, root: Path = Path("/"), ioctl: Ioctl = call_ioctl) -> str:
    """The firmware's answer to a command such as "pmic_read_adc".

    Raises:
        StorageError: Neither the mailbox nor `vcgencmd` answers; the message has both reasons.
    """
    try:
        return _ask_mailbox(command, root, ioctl)
    except (OSError, ValueError) as error:
        reason = f"mailbox: {error}"
    try:
        return _ask_vcgencmd(command)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise StorageError(
            f"the firmware does not answer {command!r} ({reason}; vcgencmd: {error}); "
            "add the agent's user to the group video, or run it as root",
            code=ErrorCode.STORAGE_CORRUPT,
        ) from error


def encode_request(command: str) -> bytearray:
    """The mailbox buffer for one command.

    Raises:
        ValueError: The command does not fit.
    """
    text = command.encode("ascii")
    if len(text) >= TEXT_BYTES:
        raise ValueError(f"a command of {len(text)} bytes does not fit into {TEXT_BYTES}")
    total = HEADER_WORDS * 4 + TEXT_BYTES + 4
    header = struct.pack("=6I", total, 0, GET_GENCMD_RESULT, TEXT_BYTES, 0, 0)
    return bytearray(header + text.ljust(TEXT_BYTES, b"\0") + bytes(4))


def decode_answer(buffer: bytearray) -> str:
    """The text in an answered buffer.

    Raises:
        ValueError: The firmware refused the command.
    """
    (status,) = struct.unpack_from("=I", buffer, 5 * 4)
    text = bytes(buffer[HEADER_WORDS * 4 :]).split(b"\0", 1)[0].decode("ascii", "replace")
    if status != 0 or text.startswith("error="):
        raise ValueError(f"the firmware refused with status {status}: {text.strip()[:80]}")
    return text


def _ask_mailbox(command: str, root: Path, ioctl: Ioctl) -> str:
    found = find_mailbox(root)
    if found is None:
        raise FileNotFoundError("there is no /dev/vcio_gencmd and no /dev/vcio")
    buffer = encode_request(command)
    handle = os.open(found, os.O_RDWR | os.O_CLOEXEC)
    try:
        ioctl(handle, REQUEST, buffer)
    finally:
        os.close(handle)
    return decode_answer(buffer)


def _ask_vcgencmd(command: str) -> str:
    program = shutil.which(PROGRAM)
    if program is None:
        raise FileNotFoundError("not on PATH")
    done = subprocess.run(
        [program, *command.split()],
        capture_output=True,
        text=True,
        timeout=VCGENCMD_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0 or not done.stdout.strip() or done.stdout.startswith("error="):
        raise ValueError((done.stderr or done.stdout).strip()[:200] or "no answer")
    return done.stdout
