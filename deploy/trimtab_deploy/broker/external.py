"""A broker that somebody else runs: we only know where it is."""

from __future__ import annotations

from trimtab_deploy.broker.port import BrokerAddress


class ExternalBroker:
    """Rules and logins are its owner's: `admit` does nothing there."""

    product = "external"

    def __init__(self, address: BrokerAddress) -> None:
        self.address = address

    async def start(self) -> None:
        """Nothing to start; the MQTT session reports whether it can be reached."""

    async def admit(self, device: str, verifier: str) -> None:
        """Nothing to write: its owner adds the device with the password that was shown."""

    async def stop(self) -> None:
        """Nothing to stop."""
