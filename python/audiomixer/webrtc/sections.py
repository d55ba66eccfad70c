"""SDP offers of many sections, and their answers, as text (RFC 8866, RFC 8829, RFC 8843).

aiortc takes a millisecond for each section of each offer, and holds them all for transceivers; a server offers its
subscribers one for each stream there ever was, anew for each that comes. All of them take one transport, so it is
enough that aiortc negotiates that; the rest is told here.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

_TRANSPORT: Final = ("a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=setup:")
_CANDIDATES: Final = ("a=candidate:", "a=end-of-candidates")
_LEVEL: Final = " urn:ietf:params:rtp-hdrext:ssrc-audio-level"
_DIRECTIONS: Final = ("a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive")


@dataclass(slots=True)
class Section:
    """A section of an SDP offer or answer."""

    lines: list[str]
    """From its `m=` on."""
    kind: str
    """`audio`, `video` or `application`."""
    protocol: str
    mid: str = ""
    """Its identification tag."""
    sends: bool = True
    """Whether it offers a stream."""
    ssrc: int | None = None
    """The stream's, if it is told."""
    opus: int | None = None
    """The payload type of Opus, if it is offered."""
    level: str = ""
    """The line that offers to tell the audio's level."""

    @classmethod
    def parse(cls, lines: list[str]) -> "Section":
        """Reads what is of interest.

        Raises:
            ValueError: It is no section.
        """
        kind, port, protocol, _ = lines[0].removeprefix("m=").split(" ", 3)
        section = cls(lines, kind, protocol)
        for line in lines:
            if line.startswith("a=mid:"):
                section.mid = line[6:]
            elif line.startswith("a=ssrc:") and section.ssrc is None:
                section.ssrc = int(line[7:].partition(" ")[0])
            elif line.startswith("a=rtpmap:") and line.lower().endswith(" opus/48000/2"):
                section.opus = int(line[9:].partition(" ")[0])
            elif line.startswith(_DIRECTIONS):
                section.sends = line.startswith(_DIRECTIONS[:2])
            elif line.startswith("a=extmap:") and _LEVEL in line:
                section.level = line
        section.sends &= port != "0" or "a=bundle-only" in lines
        return section

    @property
    def text(self) -> str:
        """The whole section."""
        return "".join(f"{line}\r\n" for line in self.lines)


def split(sdp: str) -> tuple[str, list[Section]]:
    """What is said of the whole session, and the sections.

    Raises:
        ValueError: It is no SDP.
    """
    if not sdp.startswith("v=0"):
        raise ValueError("offer: expected SDP, beginning with v=0")
    session, *sections = re.split(r"^(?=m=)", sdp, flags=re.MULTILINE)
    return session, [Section.parse(section.splitlines()) for section in sections]


def excerpt(session: str, sections: Sequence[Section]) -> str:
    """An offer of some of the sections only."""
    return _bundled(session, [section.mid for section in sections]) + "".join(section.text for section in sections)


def answer_all(sections: Sequence[Section], answered: str, version: int) -> str:
    """The answer to an offer of which an excerpt was answered.

    Args:
        sections: The whole offer's.
        answered: The answer to the excerpt.
        version: A number that rises with each answer.
    """
    session, known = split(answered)
    answers = {section.mid: section for section in known}
    transport = [line for line in known[0].lines if line.startswith(_TRANSPORT)]
    texts, accepted = [], []
    for section in sections:
        before = answers.get(section.mid)
        if before and section.kind == "application":
            texts.append(before.text)
        elif section.kind == "audio" and section.opus is not None:
            candidates = [line for line in before.lines if line.startswith(_CANDIDATES)] if before else []
            texts.append(_accept(section, section.opus, [*transport, *candidates]))
        else:
            texts.append(_reject(section))
            continue
        accepted.append(section.mid)
    session = re.sub(r"^(o=\S+ \d+) \d+ ", rf"\g<1> {version} ", session, flags=re.MULTILINE)
    return _bundled(session, accepted) + "".join(texts)


def _accept(section: Section, opus: int, transport: list[str]) -> str:
    lines = [
        f"m=audio 9 {section.protocol} {opus}",
        "c=IN IP4 0.0.0.0",
        f"a=mid:{section.mid}",
        "a=recvonly" if section.sends else "a=inactive",
        "a=rtcp-mux",
        *([section.level] if section.level else []),
        f"a=rtpmap:{opus} opus/48000/2",
        f"a=fmtp:{opus} minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1",
        *transport,
    ]
    return "".join(f"{line}\r\n" for line in lines)


def _reject(section: Section) -> str:
    payload = section.lines[0].split(" ", 3)[3]
    return (
        f"m={section.kind} 0 {section.protocol} {payload}\r\nc=IN IP4 0.0.0.0\r\na=mid:{section.mid}\r\na=inactive\r\n"
    )


def _bundled(session: str, mids: Collection[str]) -> str:
    return re.sub(r"^a=group:BUNDLE.*$", f"a=group:BUNDLE {' '.join(mids)}\r", session, flags=re.MULTILINE)
