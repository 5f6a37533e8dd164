"""The API in this process: real database, payloads and conductor; a broker that only listens."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from support.fleet_facts import open_database
from support.recording_publisher import RecordingPublisher
from trimtab_deploy.api.app import make_app
from trimtab_deploy.api.parts import Parts
from trimtab_deploy.broker.port import BrokerAddress
from trimtab_deploy.changes import Changes
from trimtab_deploy.conductor import Conductor
from trimtab_deploy.payloads import PayloadStore
from trimtab_protocol.api import ServerFacts
from trimtab_protocol.errors import TransientError

TOKEN = "the-token"


class ListeningBroker:
    """In place of a broker: remembers who was admitted."""

    product = "fake"
    address = BrokerAddress("127.0.0.1", 1883, None, speaks_mqtt5=False)

    def __init__(self) -> None:
        self.admitted: dict[str, str] = {}
        self.is_down = False

    async def start(self) -> None:
        """Nothing."""

    async def admit(self, device: str, verifier: str) -> None:
        if self.is_down:
            raise TransientError("restarting")
        self.admitted[device] = verifier

    async def stop(self) -> None:
        """Nothing."""


class ApiDesk:
    """All parts, and the application over them."""

    def __init__(
        self,
        folder: Path,
        *,
        max_payload_bytes: int = 1 << 20,
        trusted_keys: dict[str, bytes] | None = None,
    ) -> None:
        self.now = 1000.0
        self.database = open_database(folder)
        self.publisher = RecordingPublisher()
        self.broker = ListeningBroker()
        self.changes = Changes()
        self.payloads = PayloadStore(folder / "payloads", max_payload_bytes)
        self.conductor = Conductor(
            site="here",
            database=self.database,
            publisher=self.publisher,
            clock=lambda: self.now,
            changes=self.changes,
        )
        self.parts = Parts(
            token=TOKEN,
            facts=ServerFacts(
                version="1", site="here", broker="fake", mqtt_host="mq", mqtt_port=1883
            ),
            database=self.database,
            payloads=self.payloads,
            conductor=self.conductor,
            changes=self.changes,
            broker=self.broker,
            clock=lambda: self.now,
            trusted_keys=trusted_keys or {},
        )
        self.app = make_app(self.parts)

    async def write(self, work: object) -> None:
        """Run work on an open transaction."""

        def run(connection: Connection) -> None:
            work(connection)  # type: ignore[operator]

        await self.database.run(run)
