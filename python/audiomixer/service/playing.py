"""What a client has the service play: fetched here, from addresses that were checked, and decoded with nothing else."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import urlsplit

import httpx

from audiomixer.audio.decoder import Decoder, DecodingError
from audiomixer.rooms.source import Open, SourceOrder
from audiomixer.service.outbound import Outbound

SCHEMES: Final = ("http", "https", "rtmp")
_FILES: Final = "wav,mp3,mov,ogg,flac,aac,matroska,mpegts,aiff,w64,caf"
"""What FFmpeg calls the containers that lead nowhere else."""
_TIMEOUT: Final = 10.0
_REDIRECTS: Final = 5


class Opener:
    """Opens what is ordered, at addresses that may be connected to; to be made on the event loop.

    Args:
        outbound: Which those are.
    """

    def __init__(self, outbound: Outbound) -> None:
        self._resolve = outbound.resolver()

    def __call__(self, order: SourceOrder) -> Open:
        """What opens it."""
        if urlsplit(order.url).scheme.lower() == "rtmp":
            return lambda start: self._receive(order)
        return lambda start: self._fetch(order, start)

    def _receive(self, order: SourceOrder) -> Decoder:
        """A stream, whose server is told the name that it was asked for by."""
        parts = urlsplit(order.url)
        address = self._resolve(parts.hostname or "")
        host = f"[{address}]" if ":" in address else address
        port = f":{parts.port}" if parts.port else ""
        application = parts.path.strip("/").partition("/")[0]
        options = {
            "rtmp_tcurl": f"rtmp://{parts.netloc}/{application}",
            "protocol_whitelist": "rtmp,tcp",
            "rw_timeout": str(int(_TIMEOUT * 1e6)),
        }
        return Decoder(parts._replace(netloc=host + port).geturl(), options=options, timeout=_TIMEOUT)

    def _fetch(self, order: SourceOrder, start: float) -> Decoder:
        """A file, as it comes."""
        options = {"format_whitelist": _FILES, "protocol_whitelist": "none"}
        reading, writing = os.pipe()
        answer = contextlib.ExitStack()
        try:
            client = answer.enter_context(
                httpx.Client(
                    transport=_Checked(self._resolve),
                    timeout=_TIMEOUT,
                    follow_redirects=True,
                    max_redirects=_REDIRECTS,
                    trust_env=False,
                )
            )
            response = answer.enter_context(client.stream("GET", order.url))
            if response.status_code != httpx.codes.OK:
                raise DecodingError(f"the server answered {response.status_code}")
            threading.Thread(
                target=_pump, args=[response.iter_bytes(), writing, answer], name="fetch", daemon=True
            ).start()
            writing = -1
            return Decoder(order.url, start=start, loop=order.loop, options=options, feed=reading, timeout=_TIMEOUT)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DecodingError(str(error) or type(error).__name__) from error
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)
                answer.close()


def _pump(pieces: Iterator[bytes], descriptor: int, answer: contextlib.ExitStack) -> None:
    """Hands on what comes, until it ends or nobody takes it any more."""
    with answer, contextlib.suppress(httpx.HTTPError, OSError), os.fdopen(descriptor, "wb", buffering=0) as pipe:
        for piece in pieces:
            left = memoryview(piece)
            while left:
                left = left[pipe.write(left) :]


class _Checked(httpx.HTTPTransport):
    """Looks up each host itself, also those of redirects, and connects to the address that was checked."""

    def __init__(self, resolve: Callable[[str], str]) -> None:
        super().__init__(limits=httpx.Limits(max_keepalive_connections=0))
        self._resolve = resolve

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Sends the request."""
        host = request.url.host
        try:
            address = self._resolve(host)
        except OSError as error:
            raise httpx.ConnectError(str(error), request=request) from None
        request.extensions = {**request.extensions, "sni_hostname": host}
        request.url = request.url.copy_with(host=address)
        return super().handle_request(request)
