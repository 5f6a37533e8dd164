from __future__ import annotations

import asyncio
import socket

from trimtab_deploy.broker.port import BrokerAddress, Login
from trimtab_deploy.broker.probe import can_log_in, wait_until_can_log_in
from trimtab_deploy.mqtt import MqttSession


def test_without_a_connection_nothing_is_published_or_kept() -> None:
    async def story() -> None:
        address = BrokerAddress("127.0.0.1", 1, None, speaks_mqtt5=True)
        session = MqttSession(
            address, "c", ["a/+"], on_message=lambda _: None, on_ready=lambda: None
        )
        assert not session.publish("t", b"x")
        await session.drain()
        task = asyncio.create_task(session.run())
        await asyncio.sleep(0.3)
        assert not task.done()  # nobody listens: it goes on trying
        assert not session.publish("t", b"x")
        assert not session.is_ready.is_set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await session.close()

    asyncio.run(story())


def test_a_probe_of_nobody_or_of_something_else_is_no() -> None:
    async def story() -> None:
        login = Login("a", "b" * 200)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            assert not await can_log_in("127.0.0.1", port, login)
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        assert not await wait_until_can_log_in("127.0.0.1", port, login, 0.1)
        server.close()

    asyncio.run(story())
