"""Audio files of all kinds, as programs in the field write them."""

from pathlib import Path

import av
import numpy as np

from tests.signals import Signal

CODECS = {".wav": "pcm_s16le", ".mp3": "libmp3lame", ".m4a": "aac", ".ogg": "libopus", ".flac": "flac"}


def write(path: Path, signal: Signal, sample_rate: int = 48_000, channels: int = 1) -> Path:
    """Writes a mono signal; the codec is by the suffix."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix], rate=sample_rate)
        stream.layout = layout = "stereo" if channels == 2 else "mono"
        frame = av.AudioFrame.from_ndarray(signal[None, :].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = sample_rate, 0
        resampler = av.AudioResampler(stream.format, layout, sample_rate, stream.codec_context.frame_size or None)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


def decode(path: Path) -> Signal:
    """A file as samples of shape `(n, 2)`, at 48 kHz."""
    resampler = av.AudioResampler(format="flt", layout="stereo", rate=48_000)
    with av.open(str(path)) as container:
        pieces = [piece.to_ndarray()[0] for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
    return np.concatenate(pieces).astype(np.float32).reshape(-1, 2)
