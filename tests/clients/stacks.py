"""Publishers and listeners by WebRTC stacks that have nothing in common with aiortc: each a program of its own.

`python -m tests.clients.stacks` builds them ahead of the tests' time limits; what is missing for one is told.
"""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.opus import opus
from tests.signals import sine

_HERE = Path(__file__).parent
_TARGET = _HERE.parent.parent / "target"
_TOOLS = _TARGET / "tools"
PATIENCE = 30.0
"""Seconds that a client may take beyond those that it stays."""
TONE = 440
"""What each of them publishes, in Hz."""


@dataclass(frozen=True)
class Stack:
    """A client: `COMMAND publish|listen URL --seconds N [--opus FILE]` prints a line of JSON in the end."""

    name: str
    command: list[str]
    missing: str = ""
    """What it lacks here, if anything."""

    async def run(
        self, what: str, url: str, *more: str, seconds: float = 4, within: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """Runs it to its end, by a command `within` if there is one; what it says."""
        if self.missing:
            pytest.skip(f"{self.name}: {self.missing}")
        process = await asyncio.create_subprocess_exec(
            *within,
            *self.command,
            what,
            url,
            "--seconds",
            str(seconds),
            *more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(seconds + PATIENCE):
                told, problems = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        lines = told.decode().splitlines()
        assert lines, problems.decode()
        said: dict[str, Any] = json.loads(lines[-1])
        return said


def _pion() -> Stack:
    program, source = _TOOLS / "pion", _HERE / "pion" / "main.go"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        if shutil.which("go") is None:
            return Stack("Pion", [], "Go is not installed")
        program.parent.mkdir(parents=True, exist_ok=True)
        command = ["go", "build", "-o", str(program), "."]
        subprocess.run(command, cwd=_HERE / "pion", env={**os.environ, "GOFLAGS": "-modcacherw"}, check=True)
    return Stack("Pion", [str(program)])


def _webrtcbin() -> Stack:
    python = "/usr/bin/python3"
    found = subprocess.run(
        [python, "-c", "import gi; gi.require_version('GstWebRTC', '1.0'); from gi.repository import GstWebRTC"],
        capture_output=True,
        check=False,
    )
    missing = "" if found.returncode == 0 else "Debian's python3-gst-1.0 and gstreamer1.0-nice are not installed"
    return Stack("GStreamer's webrtcbin", [python, str(_HERE / "webrtcbin.py")], missing)


def _npm(name: str, package: str) -> Stack:
    """One that is a script beside this file, which runs where its package is."""
    if shutil.which("npm") is None:
        return Stack(name, [], "npm is not installed")
    folder = _TARGET / "npm" / package
    if not (folder / "node_modules" / package.partition("@")[0] / "package.json").exists():
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), package]
        subprocess.run(command, check=True)
    script = folder / f"{name}.mjs"
    for file in (script.name, "packets.mjs"):
        shutil.copyfile(_HERE / file, folder / file)
    return Stack(name, ["node", str(script)])


STACKS: dict[str, Callable[[], Stack]] = {
    "pion": _pion,
    "webrtcbin": _webrtcbin,
    "datachannel": lambda: _npm("datachannel", "node-datachannel@0.33.4"),
    "werift": lambda: _npm("werift", "werift@0.24.4"),
}


def tone(folder: Path) -> Path:
    """A file of a second of a tone, as the clients want it: Opus packets, each after its length in two bytes."""
    file = folder / "tone.packets"
    packets = opus(sine(TONE, 0.3, 2), 64)[50:]
    file.write_bytes(b"".join(len(packet).to_bytes(2, "big") + packet for packet in packets))
    return file


def packets_of(file: Path) -> list[bytes]:
    """What a client has written."""
    data, packets = file.read_bytes(), []
    while data:
        length = int.from_bytes(data[:2], "big")
        packets.append(data[2 : 2 + length])
        data = data[2 + length :]
    return packets


if __name__ == "__main__":
    for make in STACKS.values():
        stack = make()
        print(f"{stack.name}: {stack.missing or 'is there'}")
