"""SDP offers of many sections, and their answers, as text (RFC 8866, RFC 8829, RFC 8843).

aiortc takes a millisecond for each section of each offer, and holds them all for transceivers; a server offers its
subscribers one for each stream there ever was, anew for each that comes. All of them take one transport, so it is
enough that aiortc negotiates that; the rest is told here.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

TRANSPORT: Final = ("a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=setup:")
"""What the lines begin with that tell how to connect."""
_CANDIDATES: Final = ("a=candidate:", "a=end-of-candidates")
_LEVEL: Final = re.compile(r"a=extmap:(\d{1,3})(?:/\w+)? (urn:ietf:params:rtp-hdrext:ssrc-audio-level)\b")
_DIRECTION: Final = re.compile(r"^a=(sendrecv|sendonly|recvonly|inactive)\r?$", re.MULTILINE)
_OTHER_BREAK: Final = re.compile("\r(?!\n)|[\x00\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
"""What others may take for the end of a line: what is hidden behind it, one reads and the other does not."""
_HIGHEST_PAYLOAD_TYPE: Final = 127
_STEREO: Final = re.compile(r"[ ;](?:sprop-)?stereo=1\b")


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
    tagless: bool = False
    """Whether it had none, and this is one of ours."""
    direction: str = "sendrecv"
    """Of media, as whoever says it sees it."""
    wanted: bool = True
    """Whether it is offered, not refused."""
    ssrc: int | None = None
    """The stream's, if it is told."""
    opus: int | None = None
    """The payload type of Opus, if it is offered."""
    stereo: bool = False
    """Whether whoever offers it makes or wants Opus of two channels."""
    level: str = ""
    """The line that offers to tell the audio's level."""

    @property
    def sends(self) -> bool:
        """Whether it offers a stream."""
        return self.wanted and self.direction in {"sendrecv", "sendonly"}

    @property
    def carries_channels(self) -> bool:
        """Whether it is of data channels."""
        return self.kind == "application" and self.wanted and "DTLS/SCTP" in self.protocol

    @classmethod
    def parse(cls, lines: list[str], direction: str = "sendrecv") -> "Section":
        """Reads what is of interest; `direction` is what holds if it says nothing else.

        Raises:
            ValueError: It is no section.
        """
        kind, port, protocol, _ = lines[0].removeprefix("m=").split(" ", 3)
        section = cls(lines, kind, protocol, direction=direction)
        section.wanted = port != "0" or "a=bundle-only" in lines
        for line in lines:
            if line.startswith("a=mid:"):
                section.mid = line[6:]
            elif line.startswith("a=ssrc:") and section.ssrc is None:
                section.ssrc = int(line[7:].partition(" ")[0])
            elif line.startswith("a=rtpmap:") and line.lower().endswith(" opus/48000/2"):
                number = int(line[9:].partition(" ")[0])
                if section.opus is None and 0 <= number <= _HIGHEST_PAYLOAD_TYPE:
                    section.opus = number
            elif found := _DIRECTION.match(line):
                section.direction = found[1]
            elif found := _LEVEL.match(line):
                section.level = f"a=extmap:{found[1]} {found[2]}"
        fmtp = f"a=fmtp:{section.opus} "
        section.stereo = any(line.startswith(fmtp) and _STEREO.search(line) is not None for line in lines)
        return section

    @property
    def text(self) -> str:
        """The whole section."""
        return "".join(f"{line}\r\n" for line in self.lines)


def lines_of(text: str) -> list[str]:
    """Its lines, which end in nothing but CRLF, or LF where somebody was lenient."""
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def split(sdp: str) -> tuple[str, list[Section]]:
    """What is said of the whole session, and the sections.

    Raises:
        ValueError: It is no SDP.
    """
    if not sdp.startswith("v=0"):
        raise ValueError("offer: expected SDP, beginning with v=0")
    if _OTHER_BREAK.search(sdp):
        raise ValueError("offer: expected lines that end in CRLF")
    session, *texts = re.split(r"^(?=m=)", sdp, flags=re.MULTILINE)
    direction = _DIRECTION.search(session)
    default = direction[1] if direction else "sendrecv"
    sections = [Section.parse(lines_of(text), default) for text in texts]
    for n, section in enumerate(sections):
        if not section.mid:
            section.mid, section.tagless = f"section{n}", True
    return session, sections


def excerpt(session: str, sections: Sequence[Section]) -> str:
    """An offer of some of the sections only."""
    return bundled(session, [section.mid for section in sections]) + "".join(section.text for section in sections)


def answer_all(sections: Sequence[Section], answered: str, version: int) -> str:
    """The answer to an offer of which an excerpt was answered.

    Args:
        sections: The whole offer's.
        answered: The answer to the excerpt.
        version: A number that rises with each answer.
    """
    session, known = split(answered)
    answers = {section.mid: section for section in known}
    transport = [line for line in known[0].lines if line.startswith(TRANSPORT)]
    texts, accepted = [], []
    for section in sections:
        before = answers.get(section.mid)
        if before and section.kind == "application":
            texts.append(before.text)
        elif section.kind == "audio" and section.opus is not None:
            candidates = [line for line in before.lines if line.startswith(_CANDIDATES)] if before else []
            texts.append(_accept(section, section.opus, [*transport, *candidates]))
        else:
            texts.append(reject(section))
            continue
        accepted.append(section.mid)
    session = re.sub(r"^(o=\S+ \d+) \d+ ", rf"\g<1> {version} ", session, flags=re.MULTILINE)
    return bundled(session, accepted) + "".join(texts)


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


def reject(section: Section) -> str:
    """The answer that refuses a section."""
    payload = section.lines[0].split(" ", 3)[3]
    mid = "" if section.tagless else f"a=mid:{section.mid}\r\n"
    return f"m={section.kind} 0 {section.protocol} {payload}\r\nc=IN IP4 0.0.0.0\r\n{mid}a=inactive\r\n"


def bundled(session: str, mids: Collection[str]) -> str:
    """What is said of the whole session, with these sections bundled."""
    group = f"a=group:BUNDLE {' '.join(mids)}\r"
    return re.sub(r"^a=group:BUNDLE.*$", lambda _: group, session, flags=re.MULTILINE)
