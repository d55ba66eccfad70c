"""Three people who talk in a VideoRoom of Janus, for trying a mixer there.

python janus_speakers.py ws://127.0.0.1:8188 1234
"""

import asyncio
import contextlib
import itertools
import json
import sys
from importlib.resources import as_file, files
from typing import Any

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaPlayer
from websockets.asyncio.client import connect

numbers = itertools.count()


async def speak(url: str, room: int, name: str) -> None:
    async with connect(url, subprotocols=["janus-protocol"]) as socket:

        async def ask(**request: Any) -> Any:
            transaction = str(next(numbers))
            await socket.send(json.dumps({"transaction": transaction, **request}))
            while True:
                answer = json.loads(await socket.recv())
                if answer.get("transaction") == transaction and answer["janus"] != "ack":
                    return answer

        session = {"session_id": (await ask(janus="create"))["data"]["id"]}
        handle = (await ask(janus="attach", plugin="janus.plugin.videoroom", **session))["data"]["id"]
        message = {"janus": "message", "handle_id": handle, **session}
        await ask(**message, body={"request": "join", "ptype": "publisher", "room": room, "display": name})
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        with as_file(files("audiomixer.service") / "speech" / f"{name}.opus") as voice:
            connection.addTrack(MediaPlayer(str(voice), loop=True).audio)
            await connection.setLocalDescription(await connection.createOffer())
            offer = {"type": "offer", "sdp": connection.localDescription.sdp}
            answer = await ask(**message, body={"request": "publish"}, jsep=offer)
            await connection.setRemoteDescription(RTCSessionDescription(**answer["jsep"]))
            while True:
                await socket.send(json.dumps({"janus": "keepalive", "transaction": "k", **session}))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(20):
                        async for _ in socket:  # What happens in the room.
                            pass


async def main(url: str, room: int) -> None:
    await asyncio.gather(*(speak(url, room, name) for name in ("alice", "bob", "carol")))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
