"""Wrong arguments are refused with an error that names them, and change nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from audiomixer import Mixer


@pytest.mark.parametrize(
    ("argument", "make"),
    [
        ("sample_rate", lambda: Mixer(44_100)),
        ("sample_rate", lambda: Mixer(-1)),
        ("channels", lambda: Mixer(48_000, 3)),
        ("channels", lambda: Mixer(48_000, -2)),
        ("min_delay", lambda: Mixer(min_delay=-1)),
        ("max_delay", lambda: Mixer(min_delay=0.2, max_delay=0.1)),
        ("max_delay", lambda: Mixer(max_delay=float("nan"))),
    ],
)
def test_mixers_that_cannot_be(argument: str, make: Callable[[], Mixer]) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        make()


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((960, 2), np.float64),
        np.zeros((960, 1), np.float32),
        np.zeros(1920, np.float32),
        np.zeros((2, 960), np.float32).T,
        np.frombuffer(bytes(7680), np.float32).reshape(960, 2),
        [[0.0, 0.0]] * 960,
        None,
    ],
    ids=["dtype", "shape", "flat", "order", "read-only", "list", "none"],
)
def test_what_cannot_be_mixed_into(out: Any) -> None:
    with pytest.raises(ValueError, match="^out: expected a writeable C-contiguous float32 or int16"):
        Mixer().mix_into(out, 0.0)


@pytest.mark.parametrize("now", [float("nan"), float("inf"), 1e300])
def test_times_that_are_none(now: float) -> None:
    with pytest.raises(ValueError, match="^now: expected"):
        Mixer().mix(now)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(960, np.float64),
        np.zeros((960, 3), np.float32),
        np.zeros((2, 960), np.int16),
        np.zeros((4, 4, 2), np.int16),
        np.zeros((960, 4), np.int16)[:, ::2],
        b"\0" * 960,
    ],
    ids=["dtype", "channels", "order", "dimensions", "strided", "bytes"],
)
def test_samples_that_are_none(samples: Any) -> None:
    with pytest.raises(ValueError, match="^samples: expected a C-contiguous float32 or int16 array"):
        Mixer().add_participant("alice").push_pcm(samples)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 65.0])
def test_samples_that_are_no_audio(value: float) -> None:
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    with pytest.raises(ValueError, match="^samples: expected values within"):
        alice.push_pcm(np.array([0.0, value], np.float32))
    assert not np.any(mixer.mix(0.0))


def test_identities() -> None:
    mixer = Mixer()
    mixer.add_participant("alice")
    with pytest.raises(ValueError, match='^identity: "alice" is in this mixer already'):
        mixer.add_participant("alice")
    with pytest.raises(ValueError, match="^identity: expected 1 to 256 bytes"):
        mixer.add_participant("")
    with pytest.raises(ValueError, match="^identity: expected 1 to 256 bytes"):
        mixer.add_participant("ü" * 129)
    with pytest.raises(ValueError, match='^identity: no "bob" in this mixer'):
        mixer.remove_participant("bob")
    assert mixer.identities == ["alice"]


def test_who_has_left_is_told_so_and_may_come_back() -> None:
    mixer = Mixer()
    alice = mixer.add_participant("alice")
    mixer.remove_participant("alice")
    for use in (
        lambda: alice.push_pcm(np.zeros(960, np.float32)),
        lambda: alice.push_rtp(0, 0, b"\xf8", 0.0),
        lambda: setattr(alice, "gain", 0.5),
        lambda: setattr(alice, "muted", True),
    ):
        with pytest.raises(ValueError, match='^participant: "alice" has left'):
            use()
    mixer.add_participant("alice")
    mixer.mix(0.0)
    assert mixer.identities == ["alice"]
    with pytest.raises(ValueError, match='^participant: "alice" is not in this mixer'):
        mixer.mix_minus(alice)


def test_a_stranger_has_no_mix_minus() -> None:
    stranger = Mixer().add_participant("bob")
    with pytest.raises(ValueError, match='^participant: "bob" is not in this mixer'):
        Mixer().mix_minus(stranger)


@pytest.mark.parametrize("gain", [-0.1, 4.1, float("nan")])
def test_gains_that_are_none(gain: float) -> None:
    alice = Mixer().add_participant("alice")
    with pytest.raises(ValueError, match="^gain: expected 0 to 4"):
        alice.gain = gain
    assert alice.gain == 1


def test_packets_and_samples_do_not_go_together() -> None:
    mixer = Mixer()
    alice, bob = mixer.add_participant("alice"), mixer.add_participant("bob")
    alice.push_pcm(np.zeros(960, np.float32))
    with pytest.raises(ValueError, match="^payload: expected PCM"):
        alice.push_rtp(0, 0, b"\xf8", 0.0)
    bob.push_rtp(0, 0, b"\xf8", 0.0)
    with pytest.raises(ValueError, match="^samples: expected RTP"):
        bob.push_pcm(np.zeros(960, np.float32))


def test_packets_that_are_none() -> None:
    alice = Mixer().add_participant("alice")
    with pytest.raises(ValueError, match="^arrival: expected"):
        alice.push_rtp(0, 0, b"\xf8", float("nan"))
    with pytest.raises(ValueError, match="^audio_level: expected"):
        alice.push_rtp(0, 0, b"\xf8", 0.0, 128)
    with pytest.raises(ValueError, match="^sequence_number: expected 0 to 65535, got 65536"):
        alice.push_rtp(65_536, 0, b"\xf8", 0.0)
    with pytest.raises(ValueError, match="^timestamp: expected 0 to 4294967295, got -1"):
        alice.push_rtp(0, -1, b"\xf8", 0.0)
    alice.push_rtp(0, 0, b"", 0.0)  # Padding to probe the network.
    alice.push_rtp(1, 960, b"\xff" * 10_000, 0.02)
    assert alice.stats().discarded == 1
    assert alice.stats().received == 1
