"""Candidates that come after the offer, and ICE restarts: fragments of SDP, sent by PATCH (RFC 8840, RFC 9725, 4.3)."""

import re
from dataclasses import dataclass
from typing import Final, Self

from audiomixer.webrtc.sections import lines_of

TYPE: Final = "application/trickle-ice-sdpfrag"
_LARGEST: Final = 16 * 1024
_UFRAG, _PASSWORD, _MID, _CANDIDATE = "a=ice-ufrag:", "a=ice-pwd:", "a=mid:", "a=candidate:"
_NEEDED: Final = ((_UFRAG, 4, 256), (_PASSWORD, 22, 256))
_NAME: Final = re.compile(r"[\x21-\x7e]{1,64}")


class FragmentError(ValueError):
    """It is no fragment; the message begins with `fragment:`."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """Candidates of one ICE session."""

    ufrag: str
    password: str
    candidates: tuple[tuple[str, str], ...]
    """For each, the identification tag of its section, and the attribute's value."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a fragment. What is said beside credentials and candidates is passed over.

        Raises:
            FragmentError: It is none, or too large.
        """
        if len(text) > _LARGEST:
            raise FragmentError(f"fragment: expected at most {_LARGEST} bytes, got {len(text)}")
        mid, candidates, found = "", [], dict[str, str]()
        for line in lines_of(text):
            if line.startswith("m="):
                mid = ""
            elif line.startswith(_MID) and _NAME.fullmatch(line[len(_MID) :]):
                mid = line[len(_MID) :]
            elif line.startswith(_CANDIDATE):
                candidates.append((mid, line[len(_CANDIDATE) :]))
            for kind, least, most in _NEEDED:
                if line.startswith(kind) and least <= len(line) - len(kind) <= most:
                    found.setdefault(kind, line[len(kind) :])
        if len(found) < len(_NEEDED):
            raise FragmentError("fragment: expected ICE credentials")
        return cls(found[_UFRAG], found[_PASSWORD], tuple(candidates))

    def __str__(self) -> str:
        """As it is sent: with all candidates there are, of one section."""
        lines = [_UFRAG + self.ufrag, _PASSWORD + self.password]
        for mid in dict.fromkeys(mid for mid, _ in self.candidates):
            lines += ["m=audio 9 UDP/TLS/RTP/SAVPF 0", _MID + mid]
            lines += [_CANDIDATE + candidate for its, candidate in self.candidates if its == mid]
            lines.append("a=end-of-candidates")
        return "".join(f"{line}\r\n" for line in lines)
