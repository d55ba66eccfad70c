"""Three people who talk in a room of LiveKit, for trying a mixer there; needs LiveKit's SDK, `pip install livekit`.

python livekit_speakers.py ws://127.0.0.1:7880 devkey SECRET show
"""

import asyncio
import sys
from importlib.resources import files

import av
from livekit import api, rtc

RATE = 48_000


async def speak(url: str, key: str, secret: str, room: str, name: str) -> None:
    token = api.AccessToken(key, secret).with_identity(name).with_grants(api.VideoGrants(room_join=True, room=room))
    joined = rtc.Room()
    await joined.connect(url, token.to_jwt(), rtc.RoomOptions(auto_subscribe=False))
    source = rtc.AudioSource(RATE, 1)
    await joined.local_participant.publish_track(rtc.LocalAudioTrack.create_audio_track("voice", source))
    try:
        while True:
            with (
                (files("audiomixer.service") / "speech" / f"{name}.opus").open("rb") as file,
                av.open(file) as container,
            ):
                resampler = av.AudioResampler("s16", "mono", RATE)
                for decoded in container.decode(audio=0):
                    for frame in resampler.resample(decoded):
                        data = frame.to_ndarray().tobytes()
                        await source.capture_frame(rtc.AudioFrame(data, RATE, 1, frame.samples))
    finally:
        await joined.disconnect()


async def main(url: str, key: str, secret: str, room: str) -> None:
    await asyncio.gather(*(speak(url, key, secret, room, name) for name in ("alice", "bob", "carol")))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
