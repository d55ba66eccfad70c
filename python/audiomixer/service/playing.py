"""What a client has the service play: fetched here, from addresses that were checked, and decoded with nothing else."""

import contextlib
import os
import threading
from collections.abc import Callable
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
_DEADLINE: Final = 8.0
"""Seconds until a server has to have answered, redirects included."""
_REDIRECTS: Final = 5
_HEADERS: Final = {"Accept-Encoding": "identity"}
"""What would be unpacked here could be a thousand times as long."""


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
            return lambda start: self._receive(order, start)
        return lambda start: self._fetch(order, start)

    def _receive(self, order: SourceOrder, start: float) -> Decoder:
        """A stream, whose server is told the name that it was asked for by."""
        if start or order.loop:
            raise DecodingError("a stream has no other place to go on from")
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
        with contextlib.ExitStack() as answer:
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
                # Each byte may come in time, and the answer never.
                watch = threading.Timer(_DEADLINE, client.close)
                watch.start()
                answer.callback(watch.cancel)
                response = answer.enter_context(client.stream("GET", order.url, headers=_HEADERS))
                watch.cancel()
            except (httpx.HTTPError, httpx.InvalidURL, RuntimeError) as error:
                raise DecodingError(str(error) or type(error).__name__) from error
            if response.headers.get("content-encoding", "identity") != "identity":
                raise DecodingError("the server compressed it, though it was not asked to")
            if response.status_code != httpx.codes.OK:
                raise DecodingError(f"the server answered {response.status_code}")
            fetch = _Fetch(response, answer.pop_all())
        try:
            decoder = Decoder(
                order.url, start=start, loop=order.loop, options=options, feed=fetch.output, timeout=_TIMEOUT
            )
        except BaseException as error:
            if isinstance(error, DecodingError) and fetch.error:
                raise DecodingError(fetch.error) from error
            raise
        finally:
            os.close(fetch.output)
        if fetch.error:
            decoder.close()
            raise DecodingError(fetch.error)
        fetch.tell(decoder)
        return decoder


class _Fetch:
    """Hands on what comes by a pipe, until it ends, or nobody takes it any more."""

    def __init__(self, response: httpx.Response, answer: contextlib.ExitStack) -> None:
        self.error = ""
        """Why it has broken off, if it has."""
        self._decoder: Decoder | None = None
        self.output, writing = os.pipe()
        threading.Thread(target=self._pump, args=[response, answer, writing], name="fetch", daemon=True).start()

    def tell(self, decoder: Decoder) -> None:
        """Whom to tell that it has broken off."""
        self._decoder = decoder
        if self.error:
            decoder.break_off(self.error)

    def _pump(self, response: httpx.Response, answer: contextlib.ExitStack, writing: int) -> None:
        with answer, contextlib.suppress(BrokenPipeError), os.fdopen(writing, "wb", buffering=0) as pipe:
            try:
                for piece in response.iter_raw():
                    left = memoryview(piece)
                    while left:
                        left = left[pipe.write(left) :]
            except httpx.HTTPError as error:
                self.error = str(error) or type(error).__name__
                if self._decoder:
                    self._decoder.break_off(self.error)


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
        # A copy: what is relative in an answer is so to what was asked for.
        asked = httpx.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": host},
        )
        return super().handle_request(asked)
