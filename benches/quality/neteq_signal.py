"""What NetEq does to samples, modelled in floating point: expand, merge, accelerate, preemptive expand.

After `expand.cc`, `merge.cc`, `normal.cc` and `time_stretch.cc`: pitch by correlation at 4 kHz, refined at 48 kHz;
expansion from the last periods, with noise of the same spectrum where they are not alike, fading out.
"""

import numpy as np
from scipy.linalg import solve_toeplitz
from scipy.signal import decimate, lfilter

_RATE = 48_000
_MULTIPLE = 6
"""48 kHz is so many times 8 kHz, for which NetEq's constants are given."""
_COARSE = 12
"""From 48 kHz down to 4 kHz."""
_SHORTEST, _LONGEST = 120, 720
"""Periods: 2.5 to 15 ms."""
_ORDER = 6
_HISTORY = 256 * _MULTIPLE
_OVERLAP = 5 * _MULTIPLE
_VOICED = 7875 / 16384
_VOICE_MIX = (-5179 / 4096, 19931 / 4096, -16422 / 4096, 5776 / 4096)
_SLOPES = {3: 1049 / 2**20 / _MULTIPLE, 7: 2097 / 2**20 / _MULTIPLE}
"""From so many expansions in a row on it fades at least so fast per sample."""
_UNMUTE = 64 / 16384 / _MULTIPLE
_QUIET = 1e-7


def _alike(first: np.ndarray, second: np.ndarray) -> float:
    power = float(np.dot(first, first) * np.dot(second, second))
    return float(np.dot(first, second)) / np.sqrt(power) if power > _QUIET**2 else 0.0


def _pitch(signal: np.ndarray, length: int) -> int:
    """The lag at which the last `length` samples are most like those before them."""
    coarse = decimate(signal[-(length + _LONGEST) :], _COARSE, ftype="fir")
    size = length // _COARSE
    tail = coarse[-size:]
    lags = range(_SHORTEST // _COARSE, _LONGEST // _COARSE + 1)
    best = max(lags, key=lambda lag: _alike(tail, coarse[-size - lag : len(coarse) - lag])) * _COARSE
    near = range(max(_SHORTEST, best - _COARSE), min(_LONGEST, best + _COARSE) + 1)
    tail = signal[-length:]
    return max(near, key=lambda lag: _alike(tail, signal[-length - lag : len(signal) - lag]))


class Expand:
    """Goes on with a signal of which no more comes."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(5)
        self.reset()

    def reset(self) -> None:
        """Real audio has come."""
        self.count = 0
        self.mute = 1.0
        self._voiced_share = 1.0

    def process(self, past: np.ndarray) -> np.ndarray:
        """The next period of made-up audio after `past`."""
        if self.count == 0:
            self._analyse(past)
        lag = self._lags[(0, 1, 2, 1)[self.count % 4]]
        self.count += 1
        voiced = np.resize(self._period[-lag:], lag + _OVERLAP)
        noise = lfilter([1.0], self._filter, self._random.normal(0, self._residual, lag + _OVERLAP + 64))[64:]
        share = np.maximum(self._voice_mix, self._voiced_share - np.arange(len(voiced)) * self._mix_slope)
        self._voiced_share = float(share[-1])
        for count, slope in _SLOPES.items():
            if self.count >= count:
                self._mute_slope = max(self._mute_slope, slope)
        mute = np.maximum(0, self.mute - np.arange(1, len(voiced) + 1) * self._mute_slope)
        out = (share * voiced + (1 - share) * noise) * mute
        self.mute = float(mute[-1 - _OVERLAP])
        fade = np.linspace(0, 1, _OVERLAP)
        if self.count > 1:
            out[:_OVERLAP] = out[:_OVERLAP] * fade + self.tail * (1 - fade)
        self.tail = out[-_OVERLAP:]
        return out[:lag].astype(np.float32)

    def _analyse(self, past: np.ndarray) -> None:
        lag = _pitch(past, 480)
        self._lags = (lag, max(_SHORTEST, lag - 4 * _MULTIPLE // 2), max(_SHORTEST, lag - 4 * _MULTIPLE))
        last, before = past[-lag:], past[-2 * lag : -lag]
        self._period = last.copy()
        # The repetition begins where the last period began, so it is the end of the one before that it has to meet.
        blend = np.linspace(0, 1, _OVERLAP)
        self._period[-_OVERLAP:] = last[-_OVERLAP:] * (1 - blend) + before[-_OVERLAP:] * blend
        correlation = _alike(last, before)
        x = correlation
        mix = sum(c * x**power for power, c in enumerate(_VOICE_MIX)) if x > _VOICED else 0.0
        self._voice_mix = float(np.clip(mix, 0, 1))
        self._mix_slope = (1 - self._voice_mix) / max(1, lag) / 2
        ratio = np.sqrt((np.dot(last, last) + _QUIET) / (np.dot(before, before) + _QUIET))
        self._mute_slope = max(0.0, (1 - ratio) / lag) if x > _VOICED else _SLOPES[3] / 2
        history = past[-_HISTORY:]
        correlations = np.correlate(history, history, "full")[len(history) - 1 : len(history) + _ORDER]
        correlations[0] = correlations[0] * 1.0001 + _QUIET
        predictor = solve_toeplitz(correlations[:_ORDER], correlations[1:])
        self._filter = np.concatenate(([1.0], -predictor))
        residual = lfilter(self._filter, [1.0], history)[_ORDER:]
        self._residual = float(np.sqrt(np.mean(residual[-128 * _MULTIPLE // 2 :] ** 2)))


def _unmute(decoded: np.ndarray, made_up: np.ndarray, mute: float) -> np.ndarray:
    """Lets `decoded` rise from the level at which made-up audio has ended."""
    level = np.sqrt((np.mean(made_up**2) + _QUIET) / (np.mean(decoded**2) + _QUIET)) if len(made_up) else 0.0
    return decoded * np.minimum(1, max(mute, min(1.0, level)) + np.arange(len(decoded)) * _UNMUTE)


def resume(future: np.ndarray, decoded: np.ndarray, expand: Expand) -> np.ndarray:
    """Lets the packet that was waited for follow all of the made-up audio, if any (`normal.cc`)."""
    if expand.count and len(decoded):
        decoded = _unmute(decoded, future, expand.mute)
        fade = np.linspace(0, 1, _OVERLAP)
        decoded[:_OVERLAP] = decoded[:_OVERLAP] * fade + expand.tail * (1 - fade)
    return np.append(future, decoded).astype(np.float32)


def merge(past: np.ndarray, future: int, decoded: np.ndarray, expand: Expand) -> np.ndarray:
    """Lets `decoded` follow made-up audio, of which the last `future` samples of `past` are not played yet."""
    mute = expand.mute if expand.count else 1.0
    made_up = past[len(past) - future :]
    while expand.count and len(made_up) < 3 * _SHORTEST + _LONGEST // 2:
        made_up = np.append(made_up, expand.process(past))
    if not expand.count or len(decoded) == 0:
        return np.append(made_up, decoded).astype(np.float32)
    length = 2 * _SHORTEST
    lags = range(0, len(made_up) - length, _COARSE // 2)
    place = max(lags, key=lambda lag: _alike(made_up[lag : lag + length], decoded[:length]))
    unmuted = _unmute(decoded, made_up, mute)
    fade = np.linspace(0, 1, length)
    cross = made_up[place : place + length] * (1 - fade) + unmuted[:length] * fade
    return np.concatenate((made_up[:place], cross, unmuted[length:])).astype(np.float32)


def _stretchable(signal: np.ndarray, fast: bool) -> int | None:
    """The period in the first 30 ms, if it may be cut or repeated."""
    head = signal[: 2 * _LONGEST]
    if np.mean(head**2) < _QUIET:
        return _LONGEST
    lag = _pitch(head, _LONGEST)
    middle = len(head) // 2
    correlation = _alike(head[middle : middle + lag], head[middle - lag : middle])
    return lag if correlation > (0.5 if fast else 0.9) else None


def accelerate(signal: np.ndarray, *, fast: bool) -> np.ndarray:
    """Takes a period out of the first 30 ms, if there is one; several when `fast`."""
    lag = _stretchable(signal, fast)
    if lag is None:
        return signal
    middle = _LONGEST
    lag = lag * (max(1, _LONGEST // lag) if fast else 1)
    fade = np.linspace(0, 1, lag)
    cross = signal[middle - lag : middle] * (1 - fade) + signal[middle : middle + lag] * fade
    return np.concatenate((signal[: middle - lag], cross, signal[middle + lag :])).astype(np.float32)


def preemptive_expand(signal: np.ndarray, old: int) -> np.ndarray:
    """Repeats a period of 30 ms of `signal`, if there is one; the first `old` samples have been played already."""
    lag = _stretchable(signal, fast=False)
    middle = max(old, _LONGEST)
    if lag is None or middle + lag > len(signal):
        return signal
    fade = np.linspace(0, 1, lag)
    cross = signal[middle : middle + lag] * (1 - fade) + signal[middle - lag : middle] * fade
    return np.concatenate((signal[:middle], cross, signal[middle:])).astype(np.float32)
