"""Offers by WHIP and WHEP, and their answers, as text (RFC 8866, RFC 8829, RFC 8843).

An offer may hold whatever a browser, a phone or a studio's software can think of. aiortc is shown one section of Opus,
and the one of data channels, in words that it understands; of all others nothing is taken.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Self

from audiomixer.webrtc.sections import TRANSPORT, Section, bundled, lines_of, reject, split

_LARGEST: Final = 64 * 1024
_MOST_SECTIONS: Final = 16
MOST_CANDIDATES: Final = 30
"""Each of them is sent checks: nobody has so many addresses."""
_MOST_FINGERPRINTS: Final = 8
_NEEDED: Final = (("a=ice-ufrag:", 4, 256), ("a=ice-pwd:", 22, 256), ("a=fingerprint:", 1, 300))
"""What has to be said, and how long it may be (RFC 8839): each check that is sent repeats the fragment."""
_CANDIDATE: Final = re.compile(r"a=candidate:\S{1,64} 1 udp \d{1,10} (\S+) (\d{1,5}) typ \S", re.IGNORECASE)
_OPUS: Final = 111
"""The payload type that aiortc is shown: it gives numbers of its own to those below 96."""


class OfferError(ValueError):
    """An SDP offer that cannot be answered; the message begins with `offer:`."""


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer of audio."""

    session: str
    sections: list[Section]
    audio: Section
    """The first section of Opus."""
    channels: Section | None
    """The section of data channels, if there is one."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads an offer.

        Raises:
            OfferError: It is no SDP, too large, or has no audio that can be connected to.
        """
        if len(text) > _LARGEST:
            raise OfferError(f"offer: expected at most {_LARGEST} bytes, got {len(text)}")
        if text.count("\nm=") > _MOST_SECTIONS:
            raise OfferError(f"offer: expected at most {_MOST_SECTIONS} sections, got {text.count(chr(10) + 'm=')}")
        try:
            session, sections = split(text)
        except (ValueError, IndexError) as error:
            raise OfferError(f"offer: expected SDP: {str(error).removeprefix('offer: ')}") from error
        if len({section.mid for section in sections}) < len(sections):
            raise OfferError("offer: expected an a=mid of its own for each section")
        if not any(section.kind == "audio" and section.wanted for section in sections):
            raise OfferError("offer: expected an audio section")
        audio = next((s for s in sections if s.kind == "audio" and s.wanted and s.opus is not None), None)
        if audio is None:
            raise OfferError("offer: expected Opus among the audio codecs")
        offer = cls(session, sections, audio, next((s for s in sections if s.carries_channels), None))
        for section in (audio, offer.channels):
            transport = offer._transport(section) if section else []
            for needed, least, most in _NEEDED:
                found = _beginning(transport, needed)
                if section and not any(least <= len(line) - len(needed) <= most for line in found):
                    raise OfferError("offer: expected ICE credentials and a DTLS fingerprint")
        if "a=rtcp-mux" not in audio.lines:
            raise OfferError("offer: expected a=rtcp-mux")
        return offer

    @property
    def credentials(self) -> tuple[str, str]:
        """The username fragment and password of the audio's transport."""
        lines = self._transport(self.audio)
        ufrag, password = (_beginning(lines, kind)[0][len(kind) :] for kind in ("a=ice-ufrag:", "a=ice-pwd:"))
        return ufrag, password

    @property
    def candidates(self) -> int:
        """How many addresses the audio's transport is offered at."""
        return sum(line.startswith("a=candidate:") for line in self._transport(self.audio))

    def transport_of(self, mid: str) -> str:
        """The section, of those that are shown, that candidates for another one are for: all have its transport."""
        return mid if self.channels and mid == self.channels.mid and mid not in self._group() else self.audio.mid

    def _group(self) -> list[str]:
        """The sections that take one transport, by their identification tags."""
        found = re.search(r"^a=group:BUNDLE (.*?)\r?$", self.session, re.MULTILINE)
        return found[1].split() if found else []

    def _transport(self, section: Section) -> list[str]:
        """How a section is connected to: its own lines, or those of the section that it is bundled with, or all's."""
        group = self._group()
        places = [section.lines]
        if section.mid in group:
            places += [other.lines for other in self.sections if other.mid == group[0]]
        places.append(lines_of(self.session))
        lines = []
        for kind in TRANSPORT:
            found = next((found for place in places if (found := _beginning(place, kind))), [])
            lines += found[: _MOST_FINGERPRINTS if kind == "a=fingerprint:" else 1]
        if not _beginning(lines, "a=setup:"):
            lines.append("a=setup:actpass")
        candidates = [line for place in places[:-1] for line in place if is_reachable(line)]
        return [*lines, *dict.fromkeys(candidates[:MOST_CANDIDATES])]

    @property
    def shown(self) -> str:
        """What aiortc has to answer."""
        audio, channels = self.audio, self.channels
        shown = [section for section in self.sections if section is audio or section is channels]
        group = [section.mid for section in shown if section.mid in self._group()]
        lines = ["v=0", "o=- 0 0 IN IP4 0.0.0.0", "s=-", "t=0 0"]
        if "a=ice-lite" in lines_of(self.session):
            lines.append("a=ice-lite")
        if group:
            lines.append(f"a=group:BUNDLE {' '.join(group)}")
        for section in shown:
            lines += self._shown_audio() if section is audio else self._shown_channels(section)
        return "".join(f"{line}\r\n" for line in lines)

    def _shown_audio(self) -> list[str]:
        audio = self.audio
        return [
            f"m=audio 9 {audio.protocol} {_OPUS}",
            "c=IN IP4 0.0.0.0",
            f"a=mid:{audio.mid}",
            f"a={audio.direction}",
            "a=rtcp-mux",
            f"a=rtpmap:{_OPUS} opus/48000/2",
            *([audio.level] if audio.level else []),
            *self._transport(audio),
        ]

    def _shown_channels(self, section: Section) -> list[str]:
        kinds = ("a=sctp-port:", "a=max-message-size:", "a=sctpmap:")
        sizes = [line for kind in kinds for line in _beginning(section.lines, kind)[:1]]
        first = " ".join(["m=application", "9", *section.lines[0].split(" ")[2:]])
        return [first, "c=IN IP4 0.0.0.0", f"a=mid:{section.mid}", *sizes, *self._transport(section)]

    def answer(self, answered: str) -> str:
        """The answer, of which `answered` is what aiortc says to `shown`."""
        session, known = split(answered)
        answers = {section.mid: section for section in known}
        transport = "".join(f"{line}\r\n" for line in answers[self.audio.mid].lines if _is_transport(line))
        texts, accepted = [], []
        for section in self.sections:
            answer = answers.get(section.mid)
            if answer is None and section.mid in self._group() and section.wanted:
                texts.append(_leave_inactive(section) + transport)
                accepted.append(section.mid)
                continue
            if answer is None:
                texts.append(reject(section))
                continue
            lines = [line for line in answer.lines if _is_told(line)]
            if section is self.audio:
                lines = [_renumbered(line, str(section.opus)) for line in lines]
                at = next(n for n, line in enumerate(lines) if line.startswith("a=rtpmap:"))
                lines.insert(at + 1, f"a=fmtp:{section.opus} {opus_parameters(stereo=section.stereo)}")
            texts.append(
                "".join(f"{line}\r\n" for line in lines if not (section.tagless and line.startswith("a=mid:")))
            )
            if section.mid in self._group():
                accepted.append(section.mid)
        return bundled(session, accepted) + "".join(texts)


def opus_parameters(*, stereo: bool) -> str:
    """What Opus has to have: in-band FEC; two channels for whoever makes or wants them, at twice the price."""
    return "minptime=10;useinbandfec=1" + (";stereo=1;sprop-stereo=1" if stereo else "")


def _beginning(lines: list[str], kind: str) -> list[str]:
    return [line for line in lines if line.startswith(kind)]


def is_reachable(line: str) -> bool:
    """Whether it is a candidate of UDP with an address: names are not looked up, least of all those of mDNS."""
    found = _CANDIDATE.match(line)
    if not found or not 0 < int(found[2]) < 65536:
        return False
    try:
        ipaddress.ip_address(found[1])
    except ValueError:
        return False
    return True


def _is_told(line: str) -> bool:
    """One fingerprint is enough: some stacks (libdatachannel) go by the last they read."""
    return not line.startswith(("a=fingerprint:sha-384", "a=fingerprint:sha-512", "a=fmtp:"))


def _is_transport(line: str) -> bool:
    return line.startswith(TRANSPORT) and _is_told(line)


def _leave_inactive(section: Section) -> str:
    """The answer that takes nothing of a section, and leaves it on the transport of all.

    Refused altogether, one that comes first would have stacks that connect it before all others (aiortc) wait for ever.
    """
    kind, _, rest = section.lines[0].split(" ", 2)
    codecs = [line for line in section.lines if line.startswith(("a=rtpmap:", "a=fmtp:", "a=sctp-port:"))]
    lines = [f"{kind} 9 {rest}", "c=IN IP4 0.0.0.0", f"a=mid:{section.mid}", "a=inactive", "a=rtcp-mux", *codecs]
    return "".join(f"{line}\r\n" for line in lines)


def _renumbered(line: str, opus: str) -> str:
    if line.startswith("m="):
        return re.sub(rf" {_OPUS}$", f" {opus}", line)
    return re.sub(rf"^(a=(?:rtpmap|rtcp-fb)):{_OPUS} ", rf"\g<1>:{opus} ", line)
