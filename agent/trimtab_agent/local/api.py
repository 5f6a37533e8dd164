"""The API as the daemon holds it: open, publish, close."""

from __future__ import annotations

import logging
from pathlib import Path

from trimtab_agent.config import LocalSettings
from trimtab_agent.journal import Journal
from trimtab_agent.local.board import Board
from trimtab_agent.local.routes import Routes
from trimtab_agent.local.server import LocalServer
from trimtab_agent.local.views import ModelView, read_views
from trimtab_agent.store import Store
from trimtab_protocol.errors import StorageError

log = logging.getLogger(__name__)


class LocalApi:
    """The board, and the socket that shows it.

    Args:
        settings: Where, and for whom.
        path: The socket's path.
        board: What is shown; decisions hold it as their `InUse`.
        store, journal: What is read for it, by the decision thread alone.
    """

    def __init__(
        self, settings: LocalSettings, path: Path, board: Board, store: Store, journal: Journal
    ) -> None:
        self._settings = settings
        self._path = path
        self._board = board
        self._store = store
        self._journal = journal
        self._published_revision = -1
        self._views: dict[str, ModelView] = {}
        self._server: LocalServer | None = None

    def open(self) -> None:
        """Show the state and begin to answer.

        Raises:
            ConfigError: The socket cannot be made.
        """
        try:
            self.publish()
        except StorageError as error:  # shown at the first turn at which it can be read
            log.error("applications see no model yet: %s", error)
        mode = int(self._settings.mode, 8)
        routes = Routes(self._board, self._settings.max_hold_minutes * 60)
        self._server = LocalServer(self._path, mode, self._settings.group, routes)
        self._server.start()

    def publish(self) -> None:
        """Show what changed since the last time; cheap if nothing did.

        Raises:
            StorageError: A manifest cannot be read; the last state stays shown until it can.
        """
        revision = self._journal.revision
        if revision != self._published_revision:
            self._views = read_views(self._store, self._journal)
            self._published_revision = revision
        self._board.publish(self._views)

    def close(self) -> None:
        """Stop answering."""
        self._board.close()
        if self._server is not None:
            self._server.stop()
            self._server = None
