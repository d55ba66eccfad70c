"""A cluster of LiveKit's beside one of ours: a node of each is lost in mid-stream."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.cluster.machines import Machines
from tests.cluster.test_cluster import Audience, busy, until
from tests.e2e.command import free_port
from tests.outputs.servers import Server
from tests.rooms.livekit_server import KEY, SECRET, LiveKit, Participant
from tests.service.api import running


class Balancer:
    """Leads connections to the first of some ports at which somebody listens."""

    def __init__(self, *ports: int) -> None:
        self._ports = ports
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "Balancer":
        self._server = await asyncio.start_server(self._lead, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for port in self._ports:
            with contextlib.suppress(OSError):
                there, back = await asyncio.open_connection("127.0.0.1", port)
                await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
                return
        writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def livekit_nodes(folder: Path) -> AsyncIterator[tuple[LiveKit, LiveKit]]:
    """Two, over Redis."""
    redis = free_port()
    command = ["redis-server", "--port", str(redis), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    more = f"redis: {{address: 127.0.0.1:{redis}}}"
    async with Server(command, redis):
        nodes = LiveKit(folder, more), LiveKit(folder, more)
        try:
            for node in nodes:
                node.start()
            yield nodes
        finally:
            for node in nodes:
                node.kill()


def is_heard(audience: Audience) -> bool:
    told: Any = audience.told[-1]["p"].get("alice", {}) if audience.told else {}
    return bool(told.get("v", 0) > 1000)


async def test_a_node_of_each_is_lost(machines: Machines, tmp_path: Path) -> None:
    """Alice, who has LiveKit's own SDK, is heard again; numbers never come twice."""
    async with livekit_nodes(tmp_path) as (first, second), Balancer(first.port, second.port) as balancer:
        settings: dict[str, Any] = {"livekit_api_key": KEY, "livekit_api_secret": SECRET}
        settings |= {"rooms": f"livekit+{balancer.url}", "engine": "ray", "ray_address": machines.address}
        async with running(tmp_path / "data", **settings) as api:
            alice = Participant(SimpleNamespace(url=balancer.url), "show", "alice", 500)  # type: ignore[arg-type]
            await alice.join()
            streamer = await api.streamer()
            processor = await api.processor("show", streamer)
            async with Audience(api, streamer) as audience:
                await until(lambda: is_heard(audience))
                os.kill((await busy(api)).process, signal.SIGKILL)
                killed = len(audience.told)
                await until(lambda: len(audience.told) > killed + 2 and is_heard(audience))
                assert audience.check() < 10
                home = second if await is_at(second, "show") else first
                home.kill()
                killed, began = len(audience.told), time.monotonic()
                await until(lambda: len(audience.told) > killed + 8)
                await until(lambda: is_heard(audience), 40)
                print(f"heard again after {time.monotonic() - began:.1f} s")
                assert audience.check() < 10, "the stream has gone on with silence"
            assert (await api.get(f"MediaProcessors/{processor['sid']}"))["status"] == "started"
            await alice.leave()
        assert api.service.cluster
        await api.service.cluster.retire()


async def is_at(node: LiveKit, room: str) -> bool:
    """Whether a node has media connections of a room: its process has the packets."""
    assert node._process
    with socket.create_connection(("127.0.0.1", node.port)):
        pass
    return f'"room": "{room}"' in node._log.read_text()
