"""The database: one file, one writing thread, every transaction on disk before it is acknowledged.

Rules:
    1. All work happens in one thread, one transaction at a time, so "look, then write" needs no
       locks; the event loop is never blocked by a disk.
    2. WAL with synchronous=FULL: what was committed survives a power cut.
    3. No exception of SQLAlchemy leaves this module.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, StaticPool, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError

from trimtab_deploy.store.schema import METADATA, SCHEMA_VERSION
from trimtab_protocol.errors import ConfigError, StorageError

ResultT = TypeVar("ResultT")


class Database:
    """An open database.

    Args:
        path: File; made with its tables if missing.

    Raises:
        StorageError: It cannot be opened, or is not a database.
        ConfigError: It was written by a newer program.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trimtab-db")
        self._engine = create_engine(
            f"sqlite:///{path}",
            poolclass=StaticPool,
            connect_args={"check_same_thread": False, "timeout": 30},
        )
        event.listen(self._engine, "connect", _set_pragmas)
        try:
            self._thread.submit(self._transact, _create).result()
        except BaseException:
            self._thread.shutdown()
            raise

    async def run(self, work: Callable[[Connection], ResultT]) -> ResultT:
        """Do work in one transaction; it is on disk when this returns.

        Raises:
            StorageError: The database could not be read or written; nothing of it happened.
            TrimtabError: Whatever `work` raised; nothing of it happened.
        """
        return await asyncio.wrap_future(self._thread.submit(self._transact, work))

    def close(self) -> None:
        """Finish what is being written and close the file."""
        self._thread.shutdown()
        self._engine.dispose()

    def _transact(self, work: Callable[[Connection], ResultT]) -> ResultT:
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except SQLAlchemyError as error:
            raise StorageError(f"database {self._path}: {error}") from error


def _set_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _create(connection: Connection) -> None:
    found = connection.execute(text("PRAGMA user_version")).scalar_one()
    if found > SCHEMA_VERSION:
        raise ConfigError(
            f"the database has schema {found}, this program knows {SCHEMA_VERSION}: "
            "it was written by a newer trimtab; use that one"
        )
    METADATA.create_all(connection)
    connection.execute(text(f"PRAGMA user_version = {SCHEMA_VERSION}"))
