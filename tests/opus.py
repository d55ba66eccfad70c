"""Opus packets as browsers make them: Debian's libopus, with the settings that FFmpeg's wrapper lacks (DTX)."""

import ctypes
import ctypes.util
from functools import cache

import numpy as np

from audiomixer.clock.frame import SAMPLE_RATE
from tests.signals import Signal

_VOIP, _AUDIO = 2048, 2049
_SET_BITRATE, _SET_VBR, _SET_FEC, _SET_LOSS, _SET_DTX = 4002, 4006, 4012, 4014, 4016


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(ctypes.util.find_library("opus"))
    library.opus_encoder_create.restype = ctypes.c_void_p
    library.opus_decoder_create.restype = ctypes.c_void_p
    return library


def opus(
    signal: Signal,
    bitrate: int = 32,
    *,
    milliseconds: float = 20,
    application: str = "voip",
    vbr: bool = True,
    dtx: bool = False,
    fec: bool = True,
) -> list[bytes]:
    """The packets of `signal`, of shape `(n,)` or `(n, channels)`; bitrate in kbit/s. In DTX, those not sent too."""
    library = _library()
    channels = 1 if signal.ndim == 1 else signal.shape[1]
    error = ctypes.c_int()
    mode = {"voip": _VOIP, "audio": _AUDIO}[application]
    encoder = ctypes.c_void_p(library.opus_encoder_create(SAMPLE_RATE, channels, mode, ctypes.byref(error)))
    settings = {_SET_BITRATE: bitrate * 1000, _SET_VBR: vbr, _SET_FEC: fec, _SET_LOSS: 10 * fec, _SET_DTX: dtx}
    for request, value in settings.items():
        assert library.opus_encoder_ctl(encoder, request, ctypes.c_int(value)) == 0
    size = round(milliseconds * SAMPLE_RATE / 1000)
    buffer = ctypes.create_string_buffer(8000)
    packets = []
    for start in range(0, len(signal) - size + 1, size):
        piece = np.ascontiguousarray(signal[start : start + size], np.float32)
        samples = piece.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        length = library.opus_encode_float(encoder, samples, size, buffer, len(buffer))
        assert length > 0
        packets.append(buffer.raw[:length])
    library.opus_encoder_destroy(encoder)
    return packets


class Decoder:
    """libopus decoding to mono."""

    def __init__(self) -> None:
        self._library = _library()
        error = ctypes.c_int()
        self._decoder = ctypes.c_void_p(self._library.opus_decoder_create(SAMPLE_RATE, 1, ctypes.byref(error)))

    def decode(self, payload: bytes | None, samples: int, *, fec: bool = False) -> Signal:
        """`samples` from `payload`; with `fec`, those before it, from the copy that it carries."""
        pcm = np.empty(samples, np.float32)
        place = pcm.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        length = len(payload or b"")
        decoded = self._library.opus_decode_float(self._decoder, payload, length, place, samples, int(fec))
        assert decoded == samples
        return pcm

    def __del__(self) -> None:
        self._library.opus_decoder_destroy(self._decoder)


def has_fec(payload: bytes) -> bool:
    """Whether a mono packet of 20 ms carries a copy of the audio before it (RFC 6716, section 4.2.3)."""
    celt = payload[0] & 0x80
    return len(payload) > 1 and not celt and bool(payload[1] & 0x40)
