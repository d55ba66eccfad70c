"""A participant's channel strip, as a host has it before them."""

from collections.abc import Mapping
from dataclasses import dataclass

from audiomixer.audio.decibels import decibels_of, gain_of
from audiomixer.rooms.base import Room, Vitals


@dataclass(frozen=True, slots=True)
class Setting:
    """What a host has set of an identity."""

    gain_db: float = 0.0
    muted: bool = False
    in_mix: bool = True
    denoise: bool = False
    kept_out: bool = False


class Strip:
    """The settings of one identity in one room: whether it is there now, comes later, or comes back.

    Each takes effect within 20 ms, without a click, in the stream, the tracks and the metadata.

    Args:
        room: The room; it is the same for all who mix it.
        identity: Whose.

    Raises:
        ValueError: The identity is none, or too many are set of who is not there.
    """

    __slots__ = ("_fader", "_room", "identity")

    def __init__(self, room: Room, identity: str) -> None:
        self.identity = identity
        self._room = room
        self._fader = room.bus.mixer.fader(identity)

    def __repr__(self) -> str:
        states = {"muted": self._fader.muted, "not in the mix": not self.in_mix, "kept out": self.kept_out}
        told = [f"{self.gain_db:+.1f} dB", *(name for name, holds in states.items() if holds)]
        return f"<Strip {self.identity!r}: {', '.join(told)}>"

    @property
    def gain(self) -> float:
        """What its audio is multiplied with, 0 to 4; a ValueError if it is set to anything else."""
        return self._fader.gain

    @gain.setter
    def gain(self, gain: float) -> None:
        self._fader.gain = gain

    @property
    def gain_db(self) -> float:
        """The same in decibels, -60 to 12; a ValueError if it is set to anything else."""
        return decibels_of(self.gain)

    @gain_db.setter
    def gain_db(self, decibels: float) -> None:
        self.gain = gain_of(decibels)

    @property
    def muted_by_host(self) -> bool:
        """Whether nobody hears it, as `mute` says."""
        return self._fader.muted

    def mute(self) -> None:
        """Lets nobody hear it; the metadata says -1."""
        self._fader.muted = True

    def unmute(self) -> None:
        """Lets it be heard again."""
        self._fader.muted = False

    @property
    def in_mix(self) -> bool:
        """Whether it is in the stream.

        If not, the room hears it all the same (a green room), and the metadata says -1.
        """
        return self._fader.in_mix

    @in_mix.setter
    def in_mix(self, in_mix: bool) -> None:
        self._fader.in_mix = in_mix

    @property
    def denoise(self) -> bool:
        """Whether noise is taken off it (RNNoise), which makes it 10 ms later."""
        return self._fader.denoise

    @denoise.setter
    def denoise(self, denoise: bool) -> None:
        self._fader.denoise = denoise

    @property
    def vitals(self) -> Vitals | None:
        """How it gets on; None while it is not there."""
        return self._room.vitals().get(self.identity)

    @property
    def kept_out(self) -> bool:
        """Whether it may not join."""
        return self.identity in self._room.kept_out

    async def remove(self, *, keep_out: bool = False) -> None:
        """Has it leave the room, if it is there.

        Args:
            keep_out: Lets it not join again, until `let_in`; in rooms elsewhere it is removed again when it does.

        Raises:
            RemovalError: The room is elsewhere, and does not let the mixer do so.
        """
        if keep_out:
            self._room.keep_out(self.identity)
        await self._room.remove(self.identity)

    def let_in(self) -> None:
        """Lets it join again."""
        self._room.kept_out.discard(self.identity)

    def set(self, setting: Setting) -> None:
        """Sets everything."""
        self.gain_db = setting.gain_db
        self._fader.muted = setting.muted
        self.in_mix = setting.in_mix
        self.denoise = setting.denoise
        if setting.kept_out:
            self._room.keep_out(self.identity)
        else:
            self.let_in()


def set_all(room: Room, settings: Mapping[str, Setting], before: Mapping[str, Setting]) -> None:
    """Sets all that is set of identities in a room, instead of what was before."""
    for identity, setting in (dict.fromkeys(before, Setting()) | dict(settings)).items():
        Strip(room, identity).set(setting)
