from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import Connection

from support.artifacts import make_artifact
from support.fleet_facts import Facts, open_database
from trimtab_deploy.store import artifacts, desired
from trimtab_deploy.targets import add_rollout
from trimtab_protocol.errors import ProtocolError
from trimtab_protocol.messages import MAX_MESSAGE_BYTES, DesiredModel, encode
from trimtab_protocol.rollout import RolloutSpec
from trimtab_protocol.signing import read_manifest

MEGABYTE = 1024 * 1024
CHUNK_BYTES = 1024
"""One digest of 43 characters per KiB: a megabyte has a manifest of about 45 KB."""


def test_a_device_whose_models_would_not_fit_into_one_message_is_refused(tmp_path: Path) -> None:
    """[P-2.5]."""

    def story(db: Connection) -> None:
        Facts(db).add_device("a")
        for name in ("one", "two", "three"):
            signed, _ = make_artifact(name, 1, bytes(MEGABYTE), chunk_bytes=CHUNK_BYTES)
            artifacts.add(db, read_manifest(signed), signed, 1.0)
            if name == "three":
                with pytest.raises(ProtocolError, match=f"at most {MAX_MESSAGE_BYTES} fit"):
                    add_rollout(db, name, RolloutSpec(name=name, version=1), 50.0)
                return
            add_rollout(db, name, RolloutSpec(name=name, version=1), 50.0)
            wanted = DesiredModel(deployment_id=name, signed=signed)
            assert len(encode(desired.put_model(db, "a", name, wanted))) < MAX_MESSAGE_BYTES

    asyncio.run(open_database(tmp_path).run(story))
