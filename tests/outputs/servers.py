"""Servers that take what is pushed: nginx's RTMP module, Icecast, and ffmpeg listening for SRT."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Self

from tests.e2e.command import free_port

PASSWORD = "hackme"


class Server:
    """A program that can be killed, stopped in its tracks, and started again at the same port."""

    def __init__(self, command: Sequence[str], port: int | None) -> None:
        self._command = command
        self._port = port
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, start_new_session=True
        )
        async with asyncio.timeout(10):
            while self._port and not self._listens():
                await asyncio.sleep(0.05)

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port or 0), 1):
            return True
        return False

    def signal(self, number: int) -> None:
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self.wait()

    async def wait(self) -> None:
        if self._process:
            await self._process.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.kill()


@contextlib.asynccontextmanager
async def nginx_rtmp(folder: Path, certificate: tuple[Path, Path] | None = None) -> AsyncIterator[tuple[Server, int]]:
    """nginx that records what is published to `live` as FLV; gives its port: for RTMPS, if there is a certificate."""
    port, plain = free_port(), free_port()
    (folder / "recorded").mkdir()
    (folder / "recorded").chmod(0o777)
    stream = ""
    if certificate:
        stream = f"""load_module /usr/lib/nginx/modules/ngx_stream_module.so;
stream {{ server {{
  listen 127.0.0.1:{port} ssl; proxy_pass 127.0.0.1:{plain};
  ssl_certificate {certificate[0]}; ssl_certificate_key {certificate[1]};
}} }}"""
    (folder / "nginx.conf").write_text(f"""
load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
daemon off; user root; pid {folder}/nginx.pid; error_log {folder}/error.log;
{stream}
events {{}}
rtmp {{ server {{
  listen 127.0.0.1:{plain if certificate else port};
  application live {{ live on; record all; record_path {folder}/recorded; record_unique on; }}
}} }}
""")
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    async with Server(command, port) as server:
        yield server, port


@contextlib.asynccontextmanager
async def icecast(folder: Path) -> AsyncIterator[tuple[Server, int]]:
    """Icecast; gives its port."""
    port = free_port()
    share = "/usr/share/icecast2"
    (folder / "icecast.xml").write_text(f"""<icecast>
<limits><sources>5</sources><clients>20</clients></limits>
<authentication><source-password>{PASSWORD}</source-password><admin-user>admin</admin-user>
<admin-password>{PASSWORD}</admin-password></authentication>
<hostname>localhost</hostname>
<listen-socket><port>{port}</port><bind-address>127.0.0.1</bind-address></listen-socket>
<paths><logdir>{folder}</logdir><webroot>{share}/web</webroot><adminroot>{share}/admin</adminroot></paths>
<security><chroot>0</chroot><changeowner><user>nobody</user><group>nogroup</group></changeowner></security>
</icecast>""")
    folder.chmod(0o777)
    for parent in folder.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    async with Server(["icecast2", "-c", str(folder / "icecast.xml")], port) as server:
        yield server, port


def srt_listener(path: Path) -> tuple[Server, int]:
    """ffmpeg that listens for one SRT connection, and writes down the bytes that come; not started yet."""
    port = free_port()
    raw = ["-f", "data", "-raw_packet_size", "1316", "-i", f"srt://127.0.0.1:{port}?mode=listener"]
    return Server(["ffmpeg", "-v", "error", "-y", *raw, "-map", "0", "-c", "copy", "-f", "data", str(path)], None), port
