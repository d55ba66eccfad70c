"""A server of one's own: a room to talk in, its mix to listen to, and a recording of it.

Run it, and open the addresses that it prints; stop it with Ctrl-C.
"""

import asyncio

from audiomixer import AudioMixer
from audiomixer.rooms.local import LocalRooms
from audiomixer.service import Streams, media_app
from audiomixer.service.http.server import serving, stop_signals
from audiomixer.webrtc.ice import Ice


async def main(port: int = 8000, seconds: float = 3600) -> None:
    rooms = LocalRooms(Ice(["127.0.0.1"]))  # the addresses on which participants reach this machine
    streams = Streams(rooms)
    async with serving(media_app(streams), "127.0.0.1", port) as url:  # or any ASGI server
        stream = await streams.start("show", audio_bitrate=128)  # WHEP and HLS
        print(f"Talk    {url}/rooms/show")
        print(f"Listen  {url}/listen/{stream.sid}", flush=True)
        with stop_signals() as stop:
            async with AudioMixer("local:show", outputs=["show.ogg"], rooms=rooms) as recording:
                async for metadata in recording.timed_metadata():
                    print(metadata.to_json(), flush=True)
                    if stop.is_set() or metadata.time >= seconds:
                        break
        await streams.close()


if __name__ == "__main__":
    asyncio.run(main())
