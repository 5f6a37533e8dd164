"""HTTP/1.1 on a Unix socket: one request per connection, few connections, each with a deadline.

Rules:
    1. Whoever may open the socket may ask: access is the file's mode and group.
    2. A request is whole within REQUEST_S, however slowly it drips; a body has at most
       MAX_BODY_BYTES; beyond MAX_CONNECTIONS the answer is 503 at once.
    3. Nothing here can hurt the decision thread: the API shares only `Board` with it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import socket
import socketserver
import stat
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab_agent.local.routes import Answer, Request, Routes, problem
from trimtab_protocol.errors import ConfigError, ErrorCode

if TYPE_CHECKING:
    from typing_extensions import Buffer

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 32
MAX_BODY_BYTES = 256 * 1024
REQUEST_S = 5.0
ACCEPT_PAUSE_S = 0.2
MAX_PATH_BYTES = 106
"""sun_path of unix(7) has 108 bytes; one is its final zero, one marks a socket being made."""


class _Dripping(io.RawIOBase):
    """Reads a socket until a deadline; a timeout of each single read would never end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._until_s = time.monotonic() + REQUEST_S

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        self._sock.settimeout(max(0.001, self._until_s - time.monotonic()))
        return self._sock.recv_into(buffer)


class Handler(BaseHTTPRequestHandler):
    """Reads one request, and writes what the routes answer."""

    server: LocalServer
    protocol_version = "HTTP/1.1"
    server_version = "trimtab-agent"
    sys_version = ""

    def setup(self) -> None:
        """As always, but with one deadline for all that is read."""
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Dripping(self.connection))

    def handle(self) -> None:
        """One request; an asker who went away or was too slow is no error."""
        try:
            self.handle_one_request()
        except OSError as error:
            log.debug("local api: %s", error)

    def _serve(self) -> None:
        self.close_connection = True
        body = self._read_body()
        if body is not None:
            request = Request(self.command, self.path, body, self._is_gone)
            self._write(self.server.routes.answer(request))

    # Which method is allowed where is the routes' to say.
    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do_OPTIONS = _serve  # noqa: N815 - the base class finds them by these names

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class finds wrong, said as a problem too."""
        self.close_connection = True
        detail = explain or message or "the request was not understood"
        self._write(problem(code, ErrorCode.PROTOCOL_MALFORMED, detail))

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base's name
        """The base class writes to stderr, and expects an address with a port."""
        log.debug("local api: " + format, *arguments)

    def _read_body(self) -> bytes | None:
        text = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not (text.isascii() and text.isdigit()):
            self.send_error(411, "send a body with its Content-Length")
            return None
        if len(text) > 12 or int(text) > MAX_BODY_BYTES:
            self.send_error(413, f"a body has at most {MAX_BODY_BYTES} bytes here, found {text}")
            return None
        try:
            body = self.rfile.read(int(text))
        except TimeoutError:
            self.send_error(408, f"the body was not whole within {REQUEST_S:g} s")
            return None
        if len(body) < int(text):
            self.send_error(400, f"the body ended after {len(body)} of {text} bytes")
            return None
        return body

    def _write(self, answer: Answer) -> None:
        self.connection.settimeout(REQUEST_S)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.media_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Connection", "close")
        if answer.allow:
            self.send_header("Allow", answer.allow)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _is_gone(self) -> bool:
        """Asked with the board's lock held: it must not wait, as a socket with a timeout would."""
        self.connection.setblocking(False)
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True


class LocalServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The socket and its threads.

    Args:
        path: Where the socket is made; one that a killed agent left is replaced.
        mode: Permissions of the socket.
        group: Its group; None leaves the agent's own.
        routes: What answers.

    Raises:
        ConfigError: The socket cannot be made there, or another process listens on it.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, path: Path, mode: int, group: str | None, routes: Routes) -> None:
        if len(os.fsencode(path)) > MAX_PATH_BYTES:
            raise ConfigError(
                f"[local] socket {path} is longer than {MAX_PATH_BYTES} bytes, which a Unix socket "
                "cannot be: use a shorter path, such as /run/trimtab/api.sock"
            )
        self.routes = routes
        self._path = path
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._is_closing = False
        _refuse_taken(path)
        fresh = path.with_name(path.name + "~")
        try:
            fresh.unlink(missing_ok=True)
            super().__init__(str(fresh), Handler)
            # It gets its name only when it is as closed as it should be: no instant in between.
            fresh.chmod(mode)
            if group is not None:
                shutil.chown(fresh, group=group)
            fresh.replace(path)
        except (OSError, LookupError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"[local] socket {path} cannot be made: {reason}") from error
        self._inode = path.stat().st_ino
        self._thread = threading.Thread(target=self._accept, name="local-api", daemon=True)

    def start(self) -> None:
        """Answer, in threads of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Close the socket and remove its file."""
        self._is_closing = True
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._thread.join(2.0)
        self.server_close()
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def get_request(self) -> Any:
        """The next connection; without a free file descriptor this must not become a busy loop."""
        try:
            return super().get_request()
        except OSError:
            if not self._is_closing:
                time.sleep(ACCEPT_PAUSE_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for a connection, while there are free ones."""
        if self._free.acquire(blocking=False):
            try:
                super().process_request(request, client_address)
            except RuntimeError:  # no thread is to be had
                self._free.release()
                raise
            return
        log.warning("local api: %d connections are open, one more is refused", MAX_CONNECTIONS)
        with contextlib.suppress(OSError):
            request.setblocking(False)
            request.send(_busy())
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Within the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base's
        """A fault in answering costs that answer, and is said."""
        log.exception("local api: a request was not answered")

    def _accept(self) -> None:
        while not self._is_closing:
            self.handle_request()


def _refuse_taken(path: Path) -> None:
    try:
        found = path.lstat()
    except OSError:
        return  # nothing there, or making the socket will say why not
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(
            f"[local] socket {path} exists and is no socket: remove it, or name another"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return  # nobody listens: a killed agent left it
    raise ConfigError(
        f"[local] socket {path}: another process listens there; stop it, or name another",
        code=ErrorCode.CONFIG_IN_USE,
    )


def _busy() -> bytes:
    answer = problem(
        503, ErrorCode.TRANSIENT_BUSY, f"{MAX_CONNECTIONS} connections are open: retry"
    )
    head = (
        f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {answer.media_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + answer.body
