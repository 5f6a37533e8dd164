"""Devices and the server itself over HTTP."""

from __future__ import annotations

import logging

from fastapi import APIRouter

from trimtab_deploy.api.parts import Parts
from trimtab_deploy.passwords import make_password, make_verifier
from trimtab_deploy.store import devices
from trimtab_protocol.api import Device, DeviceCredentials, DeviceSpec, ServerFacts
from trimtab_protocol.errors import TransientError

LOG = logging.getLogger("trimtab.deploy.api")


def make_router(parts: Parts) -> APIRouter:
    """The routes below `/devices`, and `/server`."""
    router = APIRouter()

    @router.post("/devices", status_code=201)
    async def post_device(spec: DeviceSpec) -> DeviceCredentials:
        """Make a device known; its password is shown this once."""
        password, now = make_password(), parts.clock()
        verifier = make_verifier(password)
        await parts.database.run(lambda row: devices.add(row, spec, verifier, now))
        try:
            await parts.broker.admit(spec.device, verifier)
        except TransientError as error:
            LOG.warning("%s", error)  # the broker reads the file again when it is back
        return DeviceCredentials(
            device=spec.device,
            site=parts.facts.site,
            mqtt_host=parts.facts.mqtt_host,
            mqtt_port=parts.facts.mqtt_port,
            username=spec.device,
            password=password,
        )

    @router.get("/devices")
    async def get_devices() -> list[Device]:
        """Every device, by name."""
        return await parts.database.run(devices.get_all)

    @router.get("/devices/{device}")
    async def get_device(device: str) -> Device:
        """One device."""
        return await parts.database.run(lambda row: devices.get(row, device))

    @router.get("/server")
    async def get_server() -> ServerFacts:
        """What a client needs to know of this control plane."""
        return parts.facts

    return router
