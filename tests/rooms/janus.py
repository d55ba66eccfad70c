"""Janus, in a network of its own, and who is in its rooms."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.namespace import ENTER, INSIDE

PORT = 8188
SERVER = f"ws://{INSIDE}:{PORT}"
ADMIN_KEY = "supersecret"
_OTHERS = "libjanus_http.so,libjanus_mqtt.so,libjanus_nanomsg.so,libjanus_pfunix.so,libjanus_rabbitmq.so"
_CONFIGURATION = {
    "janus.jcfg": f"""
        general: {{ configs_folder = "CONFIGURATION", plugins_folder = "/usr/lib/x86_64-linux-gnu/janus/plugins"
                    transports_folder = "/usr/lib/x86_64-linux-gnu/janus/transports", debug_level = 4 }}
        nat: {{ ice_enforce_list = "{INSIDE}" }}
        transports: {{ disable = "{_OTHERS}" }}
    """,
    "janus.transport.websockets.jcfg": f'general: {{ ws = true, ws_port = {PORT}, ws_ip = "{INSIDE}" }}',
    "janus.plugin.videoroom.jcfg": f'general: {{ admin_key = "{ADMIN_KEY}" }}',
}


class Janus:
    """A server that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name, text in _CONFIGURATION.items():
            (folder / name).write_text(text.replace("CONFIGURATION", str(folder)))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = (self._folder / "log").open("ab")
        command = [*ENTER, "janus", "--configs-folder", str(self._folder)]
        self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                import socket

                socket.create_connection((INSIDE, PORT), 1).close()
                return
            time.sleep(0.05)
        raise TimeoutError((self._folder / "log").read_text()[-2000:])

    def kill(self, how: int = signal.SIGKILL) -> None:
        if self._process:
            os.kill(self._process.pid, how)
            self._process.wait()
            self._process = None
