"""A meter that speaks MQTT: what arrives on its topic goes into the file that the sensor reads.

    [meter]
    topic = "tele/plug-3/SENSOR"
    field = "ENERGY.Power"        # where a JSON payload holds the watts
    broker = "192.168.1.5:1883"   # optional; else the agent's own broker and user

Rules:
    1. The connection is one of its own: whatever the meter's broker does, the agent goes on.
    2. A line's time is when it arrived, by this device's CLOCK_MONOTONIC, so no clocks need to agree.
    3. The file stays small: at MAX_FILE_BYTES it becomes NAME.1, and a new one begins.
    4. A flood is thinned out, and a payload that is no power is dropped; the first is logged.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from trimtab_agent.config import LoadedConfig, MeterSettings
from trimtab_agent.energy.external import rotated
from trimtab_agent.link import make_tls_context
from trimtab_protocol.errors import ConfigError

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 64 * 1024
MAX_PAYLOAD_BYTES = 4096
MAX_WATTS = 1e6
SHORTEST_STEP_S = 0.05
"""Lines come no closer: a sensor is read ten times a second at most."""


class MeterFile:
    """Lines of (seconds of CLOCK_MONOTONIC, watts), two files of bounded size at most.

    Args:
        path: Where; it is there as soon as this object is, so that the sensor can be opened.
        clock: CLOCK_MONOTONIC in seconds.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._newest_s = -math.inf
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o644)

    def append(self, watts: float) -> None:
        """Write what arrived just now.

        Raises:
            OSError: The disk does not take it.
        """
        now_s = self._clock()
        if now_s - self._newest_s < SHORTEST_STEP_S:
            return
        self._newest_s = now_s
        with self._path.open("ab", buffering=0) as file:
            file.write(f"{now_s:.3f},{watts:.6g}\n".encode())
            size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes >= MAX_FILE_BYTES:
            self._path.replace(rotated(self._path))
            self._path.touch(0o644)


class MeterFeed:
    """Subscribed from entering to leaving the `with` block.

    Args:
        loaded: The agent's settings.
        settings: The meter's part of them, with a topic.

    Raises:
        ConfigError: The file cannot be made.
    """

    def __init__(self, loaded: LoadedConfig, settings: MeterSettings) -> None:
        self._settings = settings
        self._file = _make_file(settings.path)
        self._is_complaint_logged = False
        self._is_outage_logged = False
        self._host, self._port, self._client = _make_client(loaded, settings)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def __enter__(self) -> MeterFeed:
        self._client.connect_async(self._host, self._port, keepalive=30)
        self._client.loop_start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self, client: paho.Client, _userdata: object, _flags: object, reason: Any, _props: object
    ) -> None:
        if reason.is_failure:
            log.warning("meter: %s:%d refused: %s", self._host, self._port, reason)
            return
        self._is_outage_logged = False
        client.subscribe(self._settings.topic or "", qos=0)

    def _on_connect_fail(self, _client: object, _userdata: object) -> None:
        if not self._is_outage_logged:
            log.warning("meter: no answer from %s:%d; trying on", self._host, self._port)
        self._is_outage_logged = True

    def _on_subscribe(
        self, _client: object, _userdata: object, _mid: int, reasons: Any, _props: object
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            log.warning(
                "meter: the broker refuses the subscription to %s: allow it in the broker's ACL, "
                "or name the meter's own broker under [meter]",
                self._settings.topic,
            )

    def _on_message(self, _client: object, _userdata: object, message: paho.MQTTMessage) -> None:
        try:
            self._file.append(read_watts(bytes(message.payload), self._settings.field))
        except (OSError, ValueError) as error:
            if not self._is_complaint_logged:
                log.warning("meter: %s: %s (said once)", self._settings.topic, error)
            self._is_complaint_logged = True


def read_watts(payload: bytes, field: str | None) -> float:
    """The power in a payload: a bare number, or a member of a JSON object.

    Args:
        payload: As it came.
        field: Names on the way down with dots between them, such as "ENERGY.Power".

    Raises:
        ValueError: There is no such number, or it is no power.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a payload of {len(payload)} bytes is none of a meter")
    try:
        found: object = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{payload[:60]!r} is neither a number nor JSON") from error
    for name in field.split(".") if field else ():
        if not isinstance(found, dict) or name not in found:
            raise ValueError(f"{payload[:60]!r} has no {field}")
        found = found[name]
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ValueError(  # noqa: TRY004 - a payload is a value, whatever its type
            f"{str(found)[:60]!r} is no number; name its `field` under [meter]"
        )
    if not abs(found) <= MAX_WATTS:
        raise ValueError(f"{found} W is no power of a device")
    return float(found)


def _make_file(path: Path) -> MeterFile:
    try:
        return MeterFile(path)
    except OSError as error:
        raise ConfigError(
            f"[meter] file {path} cannot be made ({error.strerror}): name one in a folder that the "
            "agent may write to"
        ) from error


def _make_client(loaded: LoadedConfig, settings: MeterSettings) -> tuple[str, int, paho.Client]:
    """A client of the meter's broker, or of the agent's own where none is named."""
    credentials = loaded.credentials
    client = paho.Client(
        CallbackAPIVersion.VERSION2, client_id=f"trimtab-meter-{credentials.device}"
    )
    if settings.broker is not None:
        if settings.username is not None:
            client.username_pw_set(settings.username, settings.password)
        host, port = settings.address
        return host, port, client
    client.username_pw_set(credentials.username, credentials.password)
    if loaded.config.mqtt.tls_ca is not None:
        client.tls_set_context(make_tls_context(loaded.config.mqtt.tls_ca))
    return credentials.mqtt_host, credentials.mqtt_port, client
