"""Firefox as Debian has it, with the preferences that everybody has, in a network of its own; driven by WebDriver.

Firefox gathers no candidates on loopback: it and the service it talks to are in a namespace with another address.
"""

import base64
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.namespace import ENTER, INSIDE, namespace

_TOOLS = Path(__file__).parent.parent.parent / "target" / "tools"
_PORT = 4444
PREFERENCES = {
    # What is asked of tests, not of users: a microphone without a window that asks for it.
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
}


def geckodriver() -> Path | None:
    """WebDriver for Firefox, which is built once; None if there is no cargo to build it by."""
    program = _TOOLS / "bin" / "geckodriver"
    if not program.exists():
        if shutil.which("cargo") is None:
            return None
        command = ["cargo", "install", "--quiet", "--locked", "--root", str(_TOOLS), "geckodriver"]
        subprocess.run(command, check=True)
    return program


class Firefox:
    """A session."""

    def __init__(self, url: str, preferences: dict[str, Any]) -> None:
        self._client = httpx.Client(base_url=url, timeout=60)
        options = {"args": ["-headless"], "prefs": preferences}
        wanted = {"acceptInsecureCerts": True, "moz:firefoxOptions": options, "timeouts": {"script": 30_000}}
        made = self._client.post("/session", json={"capabilities": {"alwaysMatch": wanted}}).json()["value"]
        self._session = f"/session/{made['sessionId']}"
        self.version: str = made["capabilities"]["browserVersion"]

    def _post(self, path: str, **body: Any) -> Any:
        answer = self._client.post(self._session + path, json=body).json()["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(f"{answer['error']}: {answer['message']}")
        return answer

    def go_to(self, url: str) -> None:
        """Loads a page."""
        self._post("/url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns, or its promise gives."""
        return self._post("/execute/sync", script=script, args=list(arguments))

    def click(self, selector: str) -> None:
        """Clicks as a user does."""
        found = self._post("/element", using="css selector", value=selector)
        self._post(f"/element/{next(iter(found.values()))}/click")

    def type(self, selector: str, text: str) -> None:
        """Types into a field."""
        found = self._post("/element", using="css selector", value=selector)
        self._post(f"/element/{next(iter(found.values()))}/value", text=text)

    def until(self, script: str, seconds: float = 15) -> Any:
        """Waits until a script returns something."""
        deadline = time.monotonic() + seconds
        while not (found := self.run(script)):
            if time.monotonic() > deadline:
                text = self.run("return document.body.innerText")
                raise TimeoutError(f"not within {seconds} s: {script}\n{text}")
            time.sleep(0.2)
        return found

    def screenshot(self, file: Path) -> None:
        """The page as it looks."""
        file.write_bytes(base64.b64decode(self._client.get(self._session + "/screenshot").json()["value"]))

    def close(self) -> None:
        """Ends it."""
        self._client.delete(self._session)
        self._client.close()


@contextlib.contextmanager
def firefox(preferences: dict[str, Any] = PREFERENCES) -> Iterator[Firefox]:
    """A Firefox in the namespace, which has to be there."""
    program = geckodriver()
    if program is None or shutil.which("firefox-esr") is None:
        pytest.skip("Firefox or geckodriver is not installed")
    command = [*ENTER, str(program), "--host", INSIDE, "--port", str(_PORT), "--allow-hosts", INSIDE]
    process = subprocess.Popen([*command, "--log", "error"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _until_open(_PORT)
        session = Firefox(f"http://{INSIDE}:{_PORT}", preferences)
        try:
            yield session
        finally:
            session.close()
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def in_namespace(command: list[str], port: int) -> Iterator[None]:
    """A network of its own with a service in it, once that listens on `port`."""
    with namespace():
        process = subprocess.Popen([*ENTER, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            _until_open(port)
            yield
        finally:
            process.terminate()
            process.communicate()


def _until_open(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection((INSIDE, port), 1).close()
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody listens on {INSIDE}:{port}")
        time.sleep(0.1)


if __name__ == "__main__":
    print(f"geckodriver: {geckodriver() or 'cargo is not installed'}")
