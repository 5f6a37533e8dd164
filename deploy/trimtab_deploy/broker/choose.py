"""Which broker to run: a table from the setting's name to what builds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trimtab_deploy.broker.external import ExternalBroker
from trimtab_deploy.broker.mosquitto import MosquittoBroker, find_mosquitto
from trimtab_deploy.broker.port import Broker, BrokerAddress
from trimtab_protocol.errors import ConfigError, ErrorCode


@dataclass(frozen=True)
class BrokerChoice:
    """What a broker is made from."""

    folder: Path
    host: str
    port: int
    site: str
    external: BrokerAddress | None = None


def _build_mosquitto(choice: BrokerChoice, verifiers: Mapping[str, str]) -> Broker:
    program = find_mosquitto()
    if program is None:
        raise ConfigError(
            "broker = mosquitto, but there is no mosquitto on PATH: install it "
            "(apt install mosquitto), or use broker = auto",
            code=ErrorCode.CONFIG_MISSING,
        )
    return MosquittoBroker(
        program=program,
        folder=choice.folder,
        host=choice.host,
        port=choice.port,
        site=choice.site,
        verifiers=verifiers,
    )


def _build_amqtt(choice: BrokerChoice, verifiers: Mapping[str, str]) -> Broker:
    from trimtab_deploy.broker.amqtt import AmqttBroker  # noqa: PLC0415 - slow import, rarely used

    return AmqttBroker(host=choice.host, port=choice.port, site=choice.site, verifiers=verifiers)


def _build_auto(choice: BrokerChoice, verifiers: Mapping[str, str]) -> Broker:
    build = _build_mosquitto if find_mosquitto() is not None else _build_amqtt
    return build(choice, verifiers)


def _build_external(choice: BrokerChoice, verifiers: Mapping[str, str]) -> Broker:
    del verifiers
    if choice.external is None:
        raise ConfigError(
            "broker = external needs a table [external] with host and port in the configuration",
            code=ErrorCode.CONFIG_MISSING,
        )
    return ExternalBroker(choice.external)


BROKERS = {
    "auto": _build_auto,
    "mosquitto": _build_mosquitto,
    "amqtt": _build_amqtt,
    "external": _build_external,
}


def build_broker(kind: str, choice: BrokerChoice, verifiers: Mapping[str, str]) -> Broker:
    """Build the broker of a kind.

    Raises:
        ConfigError: There is no such kind, or it lacks what it needs.
    """
    if kind not in BROKERS:
        raise ConfigError(f"broker is {kind!r}, expected one of {', '.join(BROKERS)}")
    return BROKERS[kind](choice, verifiers)
