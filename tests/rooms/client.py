"""A participant that speaks WHIP, or a listener that speaks WHEP, with a stock aiortc."""

import asyncio
import contextlib
import json
from typing import Any, Self

import av
import httpx
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from audiomixer.clock.frame import FRAME_SIZE, SAMPLE_RATE, TIME_BASE
from tests.signals import Signal, sine


class Microphone(MediaStreamTrack):
    """Plays a tone in real time."""

    kind = "audio"

    def __init__(self, frequency: float, amplitude: float = 0.2) -> None:
        super().__init__()
        tone = sine(frequency, amplitude, 1)
        self._tone = (tone * 32767).astype(np.int16)
        self._frames = 0
        self._began = asyncio.get_running_loop().time()
        self.muted = False

    async def recv(self) -> av.AudioFrame:
        self._frames += 1
        wait = self._began + self._frames * 0.02 - asyncio.get_running_loop().time()
        await asyncio.sleep(max(0, wait))
        start = self._frames % 50 * FRAME_SIZE
        samples = self._tone[start : start + FRAME_SIZE] * (not self.muted)
        both = np.repeat(samples.astype(np.int16), 2)[None, :]
        frame = av.AudioFrame.from_ndarray(both, format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, self._frames * FRAME_SIZE, TIME_BASE
        return frame


class Client:
    """Connects on entering, disconnects on leaving; what it hears is in `heard`, metadata in `payloads`."""

    def __init__(self, url: str, microphone: Microphone | None = None, *, hears: bool = True, token: str = "") -> None:
        self._url = url
        self._microphone = microphone
        self._hears = hears
        self._headers = {"Content-Type": "application/sdp"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self.heard: list[Signal] = []
        self.payloads: list[Any] = []
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.response: httpx.Response
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        direction = "recvonly" if self._microphone is None else "sendrecv" if self._hears else "sendonly"
        self.pc.addTransceiver(self._microphone or "audio", direction=direction)
        if self._microphone is None:
            channel = self.pc.createDataChannel("timed-metadata")
            channel.on("message", lambda text: self.payloads.append(json.loads(text)))
        self.pc.on("track", self._on_track)
        await self.pc.setLocalDescription(await self.pc.createOffer())
        async with httpx.AsyncClient() as client:
            self.response = await client.post(self._url, headers=self._headers, content=self.pc.localDescription.sdp)
        self.response.raise_for_status()
        await self.pc.setRemoteDescription(RTCSessionDescription(self.response.text, "answer"))
        return self

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._reading = asyncio.create_task(self._read(track))

    async def _read(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                frame = await track.recv()
                self.heard.append(frame.to_ndarray().reshape(-1, 2).astype(np.float32) / 32768)
        except MediaStreamError:
            pass

    @property
    def resource(self) -> str:
        return str(self.response.url.join(self.response.headers["Location"]))

    async def delete(self) -> httpx.Response:
        async with httpx.AsyncClient() as client:
            return await client.delete(self.resource)

    async def __aexit__(self, *error: object) -> None:
        if self._reading:
            self._reading.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                # Closed meanwhile, stock aiortc goes on to connect, and stays.
                while self.pc.connectionState in {"new", "connecting"}:
                    await asyncio.sleep(0.02)
        await self.pc.close()

    def vanish(self) -> None:
        """The network is gone: nothing comes from here any more, and nothing is heard."""
        transport = self.pc.getTransceivers()[0].receiver.transport.transport
        for protocol in transport.iceGatherer._connection._protocols:
            protocol.transport.abort()
