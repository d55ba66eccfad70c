"""A server of one's own: a room to talk in, its mix to listen to, and a recording of it.

Run it, and open the addresses that it prints.
"""

import asyncio

import uvicorn

from audiomixer import AudioMixer
from audiomixer.rooms.local import LocalRooms
from audiomixer.service import Streams, create_app


async def main(port: int = 8000, seconds: float = 3600) -> None:
    rooms = LocalRooms(["127.0.0.1"])  # the addresses on which participants reach this machine
    streams = Streams(rooms)
    server = uvicorn.Server(uvicorn.Config(create_app(streams), port=port, log_level="warning"))
    serving = asyncio.create_task(server.serve())

    stream = await streams.start("show", audio_bitrate=128)  # WHEP and HLS
    print(f"Talk    http://127.0.0.1:{port}/rooms/show")
    print(f"Listen  http://127.0.0.1:{port}/listen/{stream.sid}", flush=True)
    async with AudioMixer("local:show", outputs=["show.ogg"], rooms=rooms) as recording:
        async for metadata in recording.timed_metadata():
            print(metadata.to_json(), flush=True)
            if server.should_exit or metadata.time >= seconds:
                break

    await streams.close()
    server.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(main())
