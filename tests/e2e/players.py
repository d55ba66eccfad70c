"""Pages that play a stream with one player or another, and note when clicks are heard and payloads are told."""

import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from audiomixer.audio.encoding import Encoder, Encoding
from audiomixer.clock.frame import FRAME, FRAME_SIZE, SAMPLE_RATE
from audiomixer.clock.pacer import Pacer, clock
from audiomixer.rooms.local import LocalRooms
from audiomixer.service.http.endpoints import media_app
from audiomixer.service.http.server import serving
from audiomixer.service.streams import Stream, Streams
from audiomixer.webrtc.ice import LOOPBACK
from audiomixer.webrtc.peer import Peer

_LISTEN = """
globalThis.heard = { clicks: [], payloads: [], errors: [] };
const now = () => performance.timeOrigin + performance.now();
const told = (text) => heard.payloads.push({ text, at: now() });
const failed = (error) => heard.errors.push(String(error?.message ?? error));
const listener = URL.createObjectURL(new Blob([`
  registerProcessor('listener', class extends AudioWorkletProcessor {
    last = -1;
    process([[channel]]) {
      const n = channel?.findIndex((sample) => Math.abs(sample) > 0.1) ?? -1;
      const time = currentTime + n / sampleRate;
      if (n >= 0 && time - this.last > 0.5) { this.last = time; this.port.postMessage(time); }
      return true;
    }
  });`], { type: 'text/javascript' }));
async function listen(source) {
  const context = new AudioContext({ sampleRate: 48000 });
  await context.audioWorklet.addModule(listener);
  const node = new AudioWorkletNode(context, 'listener');
  node.port.onmessage = ({ data }) => heard.clicks.push(now() - (context.currentTime - data) * 1000);
  const input = source instanceof MediaStream
    ? context.createMediaStreamSource(source) : context.createMediaElementSource(source);
  input.connect(node).connect(context.destination);
  await context.resume();
}
const audio = (globalThis.audio = Object.assign(new Audio(), { autoplay: true }));
document.body.append(audio);
"""

PLAYERS = {
    "player.js, WHEP": """
        const { Player } = await import(base + '/web/player.js');
        const player = await Player.connectTo(url, { transport: 'whep' });
        player.on('timedMetadataReceived', ({ metadata }) => told(metadata));
        player.on('error', failed);
        await player.play();
        while (!player.videoElement.srcObject) await new Promise((next) => setTimeout(next, 20));
        await listen(player.videoElement.srcObject);
    """,
    "hls.js, low latency": """
        const hls = new Hls({ lowLatencyMode: true });
        hls.on(Hls.Events.ERROR, (_, data) => data.fatal && failed(data.details));
        hls.loadSource(url); hls.attachMedia(audio);
        audio.textTracks.onaddtrack = ({ track }) => follow(track, ({ value }) =>
            value.key === 'PRIV' ? new TextDecoder().decode(value.data) : null);
        await listen(audio);
    """,
    "hls.js": """
        const hls = new Hls({ lowLatencyMode: false });
        hls.on(Hls.Events.ERROR, (_, data) => data.fatal && failed(data.details));
        hls.loadSource(url); hls.attachMedia(audio);
        audio.textTracks.onaddtrack = ({ track }) => follow(track, ({ value }) =>
            value.key === 'PRIV' ? new TextDecoder().decode(value.data) : null);
        await listen(audio);
    """,
    "Amazon IVS": """
        const { create, PlayerEventType } = IVS;
        const player = create({ wasmWorker: base + '/npm/amazon-ivs-wasmworker.min.js',
            wasmBinary: base + '/npm/amazon-ivs-wasmworker.min.wasm' });
        const video = Object.assign(document.createElement('video'), { playsInline: true });
        document.body.append(video);
        player.attachHTMLVideoElement(video);
        player.addEventListener(PlayerEventType.TEXT_METADATA_CUE, (cue) => told(cue.text));
        player.addEventListener(PlayerEventType.ERROR, (error) => failed(error.message));
        player.setAutoplay(true);
        player.load(url);
        player.play();
        globalThis.player = player;
        await listen(video);
    """,
    "Shaka": """
        const player = new shaka.Player();
        await player.attach(audio);
        player.addEventListener('error', ({ detail }) => failed('Shaka ' + detail.code));
        player.configure({ streaming: { lowLatencyMode: true } });
        const seen = new Set();
        player.addEventListener('metadata', ({ payload, startTime }) => {
            if (payload?.key !== 'PRIV') return;
            const text = new TextDecoder().decode(payload.data);
            if (seen.has(text)) return;
            seen.add(text);
            at(startTime, () => told(text));
        });
        await player.load(url).catch((error) => { throw new Error(`Shaka ${error.code} ${error.data}`); });
        await listen(audio);
    """,
    "Chromium itself": """
        audio.src = url;
        audio.onerror = () => failed(audio.error.message);
        await audio.play();
    """,
}
_HELPERS = """
function at(time, then) {
  const look = () =>
    audio.currentTime >= time ? then() : setTimeout(look, Math.max(1, (time - audio.currentTime) * 500));
  look();
}
function follow(track, read) {
  track.mode = 'hidden';
  const seen = new Set();
  track.oncuechange = () => {
    for (const cue of track.activeCues ?? []) {
      const text = read(cue);
      if (text && !seen.has(text)) { seen.add(text); told(text); }
    }
  };
}
"""


def script(player: str) -> str:
    """What a page does to play with a player: a function of the server's URL and the stream's."""
    return f"async ([base, url]) => {{ {_LISTEN} {_HELPERS} {PLAYERS[player]} }}"


def scripts(npm: Callable[[str], Path], folder: Path) -> dict[str, str]:
    """What each player's page has to load first; `folder` gets what IVS's workers load."""
    hls = (npm("hls.js@1.7") / "dist" / "hls.min.js").read_text()
    ivs = npm("amazon-ivs-player@1.56") / "dist"
    for name in ("amazon-ivs-wasmworker.min.js", "amazon-ivs-wasmworker.min.wasm"):
        (folder / name).write_bytes((ivs / "assets" / name).read_bytes())
    return {
        "hls.js, low latency": hls,
        "hls.js": hls,
        "Shaka": (npm("shaka-player@5.2") / "dist" / "shaka-player.compiled.js").read_text(),
        "Amazon IVS": _bundled(npm, ivs / "index.js", "IVS"),
    }


def _bundled(npm: Callable[[str], Path], module: Path, name: str) -> str:
    """A module of Node, and what it needs, as a script."""
    esbuild = npm("esbuild@0.25") / "bin" / "esbuild"
    options = ["--bundle", "--format=iife", f"--global-name={name}", "--external:util", "--log-level=error"]
    options.append(f"--alias:events={npm('events@3')}")
    return subprocess.run([str(esbuild), str(module), *options], check=True, capture_output=True, text=True).stdout


@dataclass
class Click:
    """A click that was made."""

    number: int
    made: float
    """When it was said, in seconds of the wall clock."""
    told: float = 0.0
    """Seconds of the stream at which it is in the mix, and its payload is."""


class Clicker:
    """A participant who clicks every two seconds or so, and has a payload inserted whenever the mix has a click."""

    def __init__(self, url: str, stream: Stream, period: float = 1.9) -> None:
        self.clicks: list[Click] = []
        self._url = url
        self._stream = stream
        self._period = round(period / FRAME)
        self._pacer: Pacer[Clicker] = Pacer(lambda those, now: [one.advance(now) for one in those])
        """Not the mixer's: a participant's clock is its own."""
        self._peer = Peer(LOOPBACK, "sendonly")
        self._encoder = Encoder(Encoding("opus", 64, channels=1))
        ramp = np.arange(480) / SAMPLE_RATE
        self._burst = (0.9 * np.sin(2 * np.pi * 2000 * ramp)).astype(np.float32)
        self._frames = 0
        self._began = 0.0
        self._last = -1.0

    async def join(self, client: Any) -> None:
        response = await client.post(
            self._url, content=await self._peer.offer(), headers={"Content-Type": "application/sdp"}
        )
        response.raise_for_status()
        await self._peer.accept(response.text)
        self._began = clock()
        self._pacer.add(self)
        self._stream.mixer.room.bus.add(self)

    async def leave(self) -> None:
        self._pacer.remove(self)
        self._stream.mixer.room.bus.remove(self)
        await self._peer.close()

    def advance(self, now: float) -> None:
        """Says what was to be said until now; called by the pacer."""
        while self._began + (self._frames + 1) * FRAME <= now:
            samples = np.zeros(FRAME_SIZE, np.float32)
            self._frames += 1
            if self._frames % self._period == 0:
                samples[240:720] = self._burst
                due = self._began + self._frames * FRAME
                self.clicks.append(Click(len(self.clicks), time.time() - (now - due) - FRAME + 240 / SAMPLE_RATE))
            for packet in self._encoder.encode(samples[:, None]):
                self._peer.media.send(packet.data, packet.pts)

    patient = False

    def on_frames(self, samples: np.ndarray) -> None:
        """Has a payload inserted where a click begins; called by the bus."""
        begins = np.abs(samples[:, 0]) > 0.1
        now = self._stream.mixer.time
        if begins.any() and now - self._last > 0.5 and self.clicks:
            self._last = now
            self.clicks[-1].told = now + int(begins.argmax()) / SAMPLE_RATE
            for output in self._stream.outputs:
                output.write_metadata(f'{{"click": {self.clicks[-1].number}}}', self.clicks[-1].told)

    def on_volumes(self, volumes: dict[str, int]) -> None:
        """Nobody asks."""


@contextlib.asynccontextmanager
async def clicking(npm_folder: Path, bitrate: int = 128) -> AsyncIterator[tuple[str, Stream, Clicker]]:
    """A server with a stream of clicks; gives its URL, the stream and the clicker."""
    streams = Streams(LocalRooms())
    media = media_app(streams)
    app = Starlette(routes=[Mount("/npm", StaticFiles(directory=npm_folder)), Mount("/", media)])
    async with serving(app, "127.0.0.1", 0) as url:
        stream = await streams.start("clicks", bitrate)
        clicker = Clicker(f"{url}/whip/clicks?identity=clicker", stream)
        async with httpx.AsyncClient() as client:
            await clicker.join(client)
        try:
            yield url, stream, clicker
        finally:
            await clicker.leave()
            await streams.close()


def pairs(clicker: Clicker, heard: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Latencies of clicks, and how much later than its click each payload was told, in seconds."""
    latencies, errors = [], []
    told = {payload["text"]: payload["at"] / 1000 for payload in heard["payloads"]}
    for click in clicker.clicks:
        at = told.get(f'{{"click": {click.number}}}')
        # A click is heard when its payload is told, more or less: they are further apart from each other.
        near = [seconds / 1000 for seconds in heard["clicks"] if at and abs(seconds / 1000 - at) < 0.9]
        if at and near:
            latencies.append(near[0] - click.made)
            errors.append(at - near[0])
    return latencies, errors
