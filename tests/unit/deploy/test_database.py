from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from support.artifacts import make_artifact
from support.fleet_facts import Facts, open_database
from trimtab_deploy.store import artifacts, devices
from trimtab_deploy.store.columns import from_text
from trimtab_deploy.store.sqlite import Database
from trimtab_protocol.api import Device
from trimtab_protocol.errors import ConfigError, ErrorCode, ProtocolError, StorageError
from trimtab_protocol.signing import read_manifest


def test_what_is_committed_is_there_for_the_next_process(tmp_path: Path) -> None:
    first = open_database(tmp_path)
    asyncio.run(first.run(lambda row: Facts(row).add_device("a")))
    first.close()
    second = open_database(tmp_path)
    assert [row.device for row in asyncio.run(second.run(devices.get_all))] == ["a"]
    second.close()


def test_it_syncs_every_commit_to_the_disk(tmp_path: Path) -> None:
    database = open_database(tmp_path)

    def pragmas(row: Connection) -> tuple[object, object]:
        return (
            row.execute(text("PRAGMA journal_mode")).scalar_one(),
            row.execute(text("PRAGMA synchronous")).scalar_one(),
        )

    assert asyncio.run(database.run(pragmas)) == ("wal", 2)
    database.close()


def test_work_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    database = open_database(tmp_path)

    def work(row: Connection) -> None:
        Facts(row).add_device("a")
        raise ProtocolError("no")

    with pytest.raises(ProtocolError, match="no"):
        asyncio.run(database.run(work))
    assert asyncio.run(database.run(devices.get_all)) == []
    database.close()


def test_no_error_of_the_library_leaves_the_adapter(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    with pytest.raises(StorageError, match=r"trimtab\.db"):
        asyncio.run(database.run(lambda row: row.execute(text("SELECT nonsense"))))
    database.close()


def test_a_file_that_is_no_database_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "trimtab.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(StorageError):
        open_database(tmp_path)


def test_a_database_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "trimtab.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="newer trimtab"):
        open_database(tmp_path)


def test_a_damaged_column_is_said(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="stored Device"):
        from_text(Device, "{}")


def test_an_artifact_never_changes(tmp_path: Path) -> None:
    database: Database = open_database(tmp_path)
    one, _ = make_artifact("m", 1, b"one")
    other, _ = make_artifact("m", 1, b"other")

    def work(row: Connection) -> None:
        added, is_new = artifacts.add(row, read_manifest(one), one, 1.0)
        assert is_new
        assert artifacts.add(row, read_manifest(one), one, 2.0) == (added, False)
        with pytest.raises(ProtocolError) as caught:
            artifacts.add(row, read_manifest(other), other, 3.0)
        assert caught.value.code is ErrorCode.PROTOCOL_CONFLICT
        assert artifacts.get_all(row) == [added]

    asyncio.run(database.run(work))
    database.close()
