"""amqtt's broker with the holes closed that matter between devices (amqtt 0.12.1).

Found by reading and by the contract suite; each is closed by one method below:
    1. A client takes over, or deletes, the session of its client id before its password is looked
       at: here the login is judged first and the client id is the user name.
    2. A will is published without asking the topic rules: a will on a foreign topic is dropped.
    3. A returning session is sent the retained messages of *everybody's* subscriptions: only its
       own count here.
    4. A second connection of the same client leaves the shared session marked as disconnected:
       the old one is ended first, and its end no longer touches the session.

The rules are given to the constructor. amqtt's own plug-ins are built from a dotted path, so they
could only reach the rules through module-level state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker as AmqttServer
from amqtt.contexts import Action, BrokerConfig, ListenerConfig
from amqtt.errors import AMQTTError, MQTTError, NoDataError
from amqtt.mqtt.connack import NOT_AUTHORIZED, ConnackPacket
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import Session


@dataclass(frozen=True)
class Rules:
    """What the broker asks before it does anything for a client."""

    may_log_in: Callable[[str, str], bool]
    may_write: Callable[[str, str], bool]
    may_read: Callable[[str, str], bool]


class GuardedServer(AmqttServer):  # type: ignore[misc]  # amqtt is not followed by mypy
    """The broker; see the module for what differs."""

    def __init__(self, host: str, port: int, rules: Rules) -> None:
        listener = ListenerConfig(bind=f"{host}:{port}")
        super().__init__(BrokerConfig(listeners={"default": listener}, plugins={}))
        self._rules = rules
        self._taken_over: set[int] = set()

    async def _initialize_client_session(
        self, reader: ReaderAdapter, writer: WriterAdapter, remote_address: str, remote_port: int
    ) -> tuple[BrokerProtocolHandler, Session]:
        del remote_address, remote_port
        try:
            handler, session = await BrokerProtocolHandler.init_from_connect(
                reader, writer, self.plugins_manager
            )
        except (MQTTError, NoDataError) as error:
            await writer.close()
            raise AMQTTError(error) from error
        if not self._rules.may_log_in(session.username or "", session.password or ""):
            await ConnackPacket.build(0, NOT_AUTHORIZED).to_stream(writer)
            await writer.close()
            raise AMQTTError("wrong user name or password")
        session.client_id = session.username
        if session.will_flag and not self._rules.may_write(session.username, session.will_topic):
            session.will_flag = False
        return handler, await self._resume(session)

    async def _resume(self, session: Session) -> Session:
        """The session to go on with: the stored one with the new connection's will, or this one."""
        stored, old_handler = self._sessions.get(session.client_id, (None, None))
        if stored is not None and stored.transitions.is_connected():
            self._taken_over.add(id(old_handler))
            await self._stop_handler(old_handler)
            stored.transitions.disconnect()
        if session.clean_session:
            await self._delete_session(session.client_id)
        if stored is None or session.clean_session or stored.clean_session:
            session.parent = 0
            return session
        for field in ("will_flag", "will_message", "will_topic", "will_qos", "will_retain"):
            setattr(stored, field, getattr(session, field))
        stored.keep_alive = session.keep_alive
        stored.parent = 1
        return stored

    async def _authenticate(self, session: Session, _: ListenerConfig) -> bool:
        return bool(session.username) and session.client_id == session.username

    async def _topic_filtering(self, session: Session, topic: str, action: Action) -> bool:
        rule = self._rules.may_write if action == Action.PUBLISH else self._rules.may_read
        return rule(session.username or "", topic)

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        subscribers = self._subscriptions.get(subscription[0], ())
        if any(subscriber is session for subscriber, _ in subscribers):
            await super()._publish_retained_messages_for_subscription(subscription, session)

    async def _handle_disconnect(
        self,
        client_session: Session,
        handler: BrokerProtocolHandler,
        disconnect_waiter: asyncio.Future[object],
    ) -> None:
        if id(handler) in self._taken_over:
            self._taken_over.discard(id(handler))
            return
        await super()._handle_disconnect(client_session, handler, disconnect_waiter)
