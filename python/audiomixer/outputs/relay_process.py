"""Sends what comes on standard input to a URL, byte for byte; run as a program by `relay.py`.

The URL, which may hold a key, comes by the environment: arguments can be read by everybody on the machine.
"""

import json
import os
import sys

import av

_CHUNK = 65536


def main(url: str, options: dict[str, str]) -> None:
    """Connects, says so, and sends until the input ends."""
    # By itself PyAV gives protocols no options; FFmpeg's tee does, with one leg.
    told = ":".join(f"{key}={_escape(_escape(value, ':'))}" for key, value in {"f": "data", **options}.items())
    with av.open(f"[{told}]{_escape(url)}", "w", format="tee") as container:
        stream = container.add_data_stream()
        container.start_encoding()
        print("Output #0", file=sys.stderr, flush=True)  # noqa: T201
        number = 0
        while data := os.read(0, _CHUNK):
            packet = av.Packet(data)
            packet.pts = packet.dts = number
            packet.stream = stream
            container.mux_one(packet)
            number += 1


def _escape(text: str, special: str = "|[]") -> str:
    return "".join(f"\\{character}" if character in special + "'\\" else character for character in text)


if __name__ == "__main__":
    try:
        main(os.environ["RELAY_URL"], json.loads(os.environ["RELAY_OPTIONS"]))
    except (OSError, av.FFmpegError) as error:
        sys.exit(f"relay: {error.strerror or error}")
