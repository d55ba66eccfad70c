"""Mixes a room of LiveKit or Janus into a recording, and prints what happens there.

python elsewhere.py 'livekit+ws://127.0.0.1:7880/show?api_key=devkey&api_secret=…'
python elsewhere.py janus+ws://127.0.0.1:8188/1234
"""

import asyncio
import sys

from audiomixer import AudioMixer
from audiomixer.rooms.base import RoomError


async def main(room: str, seconds: float | None = None) -> None:
    mixer = AudioMixer(room, outputs=["show.ogg"])
    events = asyncio.create_task(print_events(mixer))
    async with mixer:
        async for metadata in mixer.timed_metadata():
            print(metadata.to_json())
            if seconds is not None and metadata.s + 1 >= 2 * seconds:
                break
    await events


async def print_events(mixer: AudioMixer) -> None:
    async for event in mixer.room_events():
        print(event.what, event.identity, event.reason)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        asyncio.run(main(sys.argv[1]))
    except (ValueError, RoomError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass  # The recording is complete.
