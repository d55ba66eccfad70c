"""How many listeners one core carries: by WHEP, and by HLS from the process itself and through nginx.

Listeners by WHEP are real connections (ICE, DTLS, SRTP) of a process on another core, which counts what arrives. HLS is
asked for by `wrk`. Prints the share of the core, what was lost or late, and requests a second.

    python -m benches.listeners --listeners 400 --seconds 30
"""

import argparse
import asyncio
import multiprocessing
import os
import re
import subprocess
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np

from audiomixer import AudioMixer
from audiomixer.clock.bus import process_pacer
from audiomixer.clock.frame import FRAME_SIZE
from audiomixer.outputs.whep import WhepOutput
from audiomixer.rooms.local import LocalRooms
from audiomixer.service.http.endpoints import media_app
from audiomixer.service.http.server import serving
from audiomixer.service.streams import Streams
from audiomixer.webrtc.ice import LOOPBACK
from audiomixer.webrtc.peer import Peer
from benches.senders import in_process
from tests.e2e.command import free_port
from tests.outputs.servers import Server
from tests.service.test_offload import EXAMPLE

_SETTLE = 5.0
_CONNECTIONS = 64


async def talk(mixer: AudioMixer) -> None:
    """Noise, in real time."""
    talker = mixer.room.bus.mixer.add_participant("talker")
    noise = np.random.default_rng(1).normal(0, 0.05, FRAME_SIZE * 50).astype(np.float32)
    talker.push_pcm(noise[: 10 * FRAME_SIZE])
    began, frame = time.monotonic(), 0
    while True:
        talker.push_pcm(noise[frame % 50 * FRAME_SIZE :][:FRAME_SIZE])
        frame += 1
        await asyncio.sleep(began + frame * 0.02 - time.monotonic())


async def serve(answers: Connection, listeners: int, seconds: float) -> None:
    """Answers as many listeners; sends CPU share, late ticks and packets dropped."""
    whep = WhepOutput(128)
    async with AudioMixer("local:bench", outputs=[whep], rooms=LocalRooms()) as mixer:
        talking = asyncio.create_task(talk(mixer))
        for _ in range(listeners):
            answers.send((await whep.join(await asyncio.to_thread(answers.recv)))[1])
        await asyncio.sleep(_SETTLE)
        used, began, late = time.process_time(), time.monotonic(), process_pacer().late
        await asyncio.sleep(seconds)
        share = (time.process_time() - used) / (time.monotonic() - began)
        answers.send((share, process_pacer().late - late, whep.dropped, whep.listeners))
        await asyncio.to_thread(answers.recv)
        talking.cancel()


async def listen(offers: Connection, listeners: int) -> None:
    """Offers as many connections, and receives until told to stop; sends packets lost and the largest jitter in ms."""
    peers = [Peer(LOOPBACK, "recvonly") for _ in range(listeners)]
    for peer in peers:
        offers.send(await peer.offer())
        await peer.accept(await asyncio.to_thread(offers.recv))
    await asyncio.sleep(_SETTLE)
    for peer in peers:
        peer.media.inlet.reports()
    await asyncio.to_thread(offers.recv)
    reports = [report for peer in peers for report in peer.media.inlet.reports()]
    offers.send((len(reports), sum(report.lost for report in reports), max(report.jitter for report in reports) / 48))
    for peer in peers:
        await peer.close()


def whep(listeners: int, seconds: float) -> None:
    offers, offered = multiprocessing.Pipe()
    answers, answered = multiprocessing.Pipe()
    receiver = in_process(listen, offered, listeners, core=1)
    server = in_process(serve, answered, listeners, seconds, core=0)
    for _ in range(listeners):
        answers.send(offers.recv())
        offers.send(answers.recv())
    share, late, dropped, there = answers.recv()
    offers.send("stop")
    heard, lost, jitter = offers.recv()
    answers.send("stop")
    for process in (receiver, server):
        process.join()
    print(f"WHEP, {there} listeners at 128 kbit/s, {seconds:.0f} s, one core for the server:")
    print(f"  core {share:.0%} busy; {late} late ticks; {dropped} packets dropped")
    print(f"  {heard} listeners heard all but {lost} packets; jitter at most {jitter:.1f} ms")


def wrk(url: str, seconds: float) -> str:
    """Requests a second, and how many were not answered well."""
    command = ["taskset", "-c", "1", "wrk", "-t", "1", "-c", str(_CONNECTIONS), "-d", f"{seconds:.0f}", url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    rate = re.search(r"Requests/sec:\s*([\d.]+)", said)
    return f"{float(rate[1]):,.0f} requests/s, {errors[1] if errors else 0} errors" if rate else said


async def hls(seconds: float) -> None:
    os.sched_setaffinity(0, {0})
    streams = Streams(LocalRooms())
    with tempfile.TemporaryDirectory() as folder:
        async with serving(media_app(streams), "127.0.0.1", 0) as url:
            stream = await streams.start("bench")
            await asyncio.sleep(8)
            base = f"{url}/hls/{stream.sid}"
            async with httpx.AsyncClient() as client:
                playlist = (await client.get(f"{base}/audio.m3u8")).text
            segment = re.findall(r"^\S+\.ts$", playlist, re.MULTILINE)[-1]
            size = len(await stream.hls.media(segment) or b"") // 1024
            print(f"HLS, segments of {size} KiB, {_CONNECTIONS} connections, one core each for server and client:")
            print("  from the process   ", await asyncio.to_thread(wrk, f"{base}/{segment}", seconds))
            port = free_port()
            text = EXAMPLE.read_text().replace("127.0.0.1:8080", urlsplit(url).netloc)
            text = text.replace("listen 443 ssl http2", f"listen 127.0.0.1:{port}").replace("worker_processes auto", "")
            text = re.sub(r"\s*ssl_certificate\S* \S+;", "", text).replace("\n;", "\n")
            text = text.replace("/var/cache/nginx", folder).replace("/var/log/nginx", folder)
            head = f"daemon off; user root; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
            await asyncio.to_thread(Path(folder, "nginx.conf").write_text, head + text)
            nginx = ["taskset", "-c", "0", "nginx", "-p", folder, "-c", f"{folder}/nginx.conf"]
            async with Server(nginx, port):
                cached = f"http://127.0.0.1:{port}/hls/{stream.sid}/{segment}"
                print("  through nginx      ", await asyncio.to_thread(wrk, cached, seconds))
            await streams.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listeners", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    whep(options.listeners, options.seconds)
    asyncio.run(hls(min(10.0, options.seconds)))


if __name__ == "__main__":
    main()
