"""Janus's AudioBridge, a mixer in C, in a network namespace: it opens ports on every address it finds."""

import contextlib
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.namespace import ENTER, INSIDE, namespace

_API = f"http://{INSIDE}:8088/janus"
_ROOM = 1
_PACKAGES = Path(__file__).with_name("system-packages")
_CONFIGURATION = {
    "janus.jcfg": f"""
        general: {{ configs_folder = "CONFIGURATION", plugins_folder = "/usr/lib/x86_64-linux-gnu/janus/plugins"
                    transports_folder = "/usr/lib/x86_64-linux-gnu/janus/transports", debug_level = 2 }}
        nat: {{ ice_enforce_list = "{INSIDE}" }}
    """,
    "janus.transport.http.jcfg": f'general: {{ base_path = "/janus", http = true, port = 8088, ip = "{INSIDE}" }}',
    "janus.plugin.audiobridge.jcfg": f"""
        room-{_ROOM}: {{ description = "bench", sampling_rate = 48000, audiolevel_ext = false, record = false }}
    """,
}


class AudioBridge:
    """A client of Janus's HTTP interface."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._client = httpx.Client(base_url=_API, timeout=10)
        self._session = self._ask("", janus="create")["data"]["id"]

    def _ask(self, path: str, **request: Any) -> Any:
        response = self._client.post(path, json={"transaction": uuid.uuid4().hex} | request)
        response.raise_for_status()
        return response.json()

    def join(self, offer: str, name: str) -> str:
        """A participant joins by an SDP offer; returns the answer."""
        handle = self._ask(f"/{self._session}", janus="attach", plugin="janus.plugin.audiobridge")["data"]["id"]
        body = {"request": "join", "room": _ROOM, "display": name}
        jsep = {"type": "offer", "sdp": offer}
        self._ask(f"/{self._session}/{handle}", janus="message", body=body)
        self._ask(f"/{self._session}/{handle}", janus="message", body={"request": "configure"}, jsep=jsep)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            event = self._client.get(f"/{self._session}", params={"maxev": 1}).json()
            if event.get("sender") == handle and "jsep" in event:
                return str(event["jsep"]["sdp"])
        raise TimeoutError("Janus did not answer the offer")

    def cpu_time(self) -> float:
        """Seconds of CPU that Janus has used, all threads together."""
        fields = Path(f"/proc/{self._process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def audiobridge() -> Iterator[AudioBridge]:
    """Runs Janus for the length of the context. Needs root."""
    subprocess.run([_PACKAGES, "janus", "iproute2"], check=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(namespace())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for name, text in _CONFIGURATION.items():
            (Path(folder) / name).write_text(text.replace("CONFIGURATION", folder))
        command = [*ENTER, "janus", "--configs-folder", folder]
        janus = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        stack.callback(janus.wait)
        stack.callback(janus.terminate)
        for _ in range(100):
            time.sleep(0.1)
            with contextlib.suppress(httpx.TransportError):
                bridge = AudioBridge(janus.pid)
                break
        else:
            raise TimeoutError("Janus did not start")
        yield bridge
