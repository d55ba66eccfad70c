"""Offers of all kinds, and their answers, as text."""

import re

import pytest

from audiomixer.webrtc.ice import LOOPBACK
from audiomixer.webrtc.offers import Offer, OfferError
from audiomixer.webrtc.peer import Peer
from audiomixer.webrtc.sections import split

TRANSPORT = (
    "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=setup:actpass\r\na=fingerprint:sha-256 "
    + "00:" * 31
    + "00"
).split("\r\n")


def section(kind: str, mid: str, codec: str, *lines: str, port: int = 9, transport: bool = True) -> str:
    number, _, name = codec.partition(" ")
    every = [
        f"m={kind} {port} UDP/TLS/RTP/SAVPF {number}",
        "c=IN IP4 0.0.0.0",
        *(TRANSPORT if transport else []),
        f"a=mid:{mid}",
        "a=rtcp-mux",
        f"a=rtpmap:{number} {name}",
        *lines,
    ]
    return "".join(f"{line}\r\n" for line in every)


def offer(*sections: str, session: str = "", bundled: str = "0 1 2 3") -> str:
    return f"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {bundled}\r\n{session}" + "".join(sections)


OPUS = "111 opus/48000/2"
AUDIO = section("audio", "0", OPUS, "a=sendrecv")
DATA = (
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\n"
    + "".join(f"{line}\r\n" for line in TRANSPORT)
    + "a=mid:1\r\na=sctp-port:5000\r\n"
)
VIDEOS = {
    name: section("video", "1", f"96 {name}/90000", "a=sendonly", *fmtp)
    for name, fmtp in {
        "AV1": (),
        "H265": (),
        "VP9": ("a=fmtp:96 profile-id=2",),
        "H264": ("a=fmtp:96 profile-level-id=640c1f;packetization-mode=1",),
    }.items()
}

KINDS = {
    **{name: offer(AUDIO, video) for name, video in VIDEOS.items()},
    "no direction": offer(section("audio", "0", OPUS)),
    "direction of all": offer(section("audio", "0", OPUS), session="a=sendonly\r\n"),
    "vad": offer(section("audio", "0", OPUS, "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level vad=on")),
    "bundled behind video": offer(
        VIDEOS["H264"], section("audio", "2", OPUS, "a=bundle-only", port=0, transport=False), bundled="1 2"
    ),
    "two of audio": offer(AUDIO, section("audio", "1", "112 multiopus/48000/6", "a=sendrecv")),
    "text": offer(AUDIO, section("text", "1", "98 t140/1000")),
    "channels": offer(AUDIO, DATA),
    "transport of all": offer(
        section("audio", "0", OPUS, transport=False), session="".join(f"{line}\r\n" for line in TRANSPORT)
    ),
    "a number below 96": offer(section("audio", "0", "35 opus/48000/2", "a=sendrecv")),
    "names and TCP": offer(
        section(
            "audio",
            "0",
            OPUS,
            "a=candidate:0 1 UDP 2122187007 3dd9d5ab-5c1c-4e3c-8d3d-0a1b2c3d4e5f.local 51000 typ host",
            "a=candidate:1 1 TCP 2105524479 10.0.0.1 9 typ host tcptype active",
            "a=end-of-candidates",
        )
    ),
    "no tags": offer(section("audio", "x", OPUS)).replace("a=mid:x\r\n", "").replace("a=group:BUNDLE 0 1 2 3\r\n", ""),
    "line feeds": offer(AUDIO).replace("\r\n", "\n"),
}


@pytest.mark.parametrize("text", KINDS.values(), ids=KINDS)
async def test_whatever_is_offered_beside_it_opus_is_answered_and_nothing_else_taken(text: str) -> None:
    peer = Peer(LOOPBACK, "sendrecv")
    answer = await peer.answer(text)
    session, answered = split(answer)
    _, offered = split(text)
    assert [(s.kind, s.mid, s.protocol) for s in answered] == [(s.kind, s.mid, s.protocol) for s in offered]
    taken = [section for section in answered if section.wanted and section.direction != "inactive"]
    assert [section.kind for section in taken if section.kind != "application"] == ["audio"]
    audio = next(section for section in taken if section.kind == "audio")
    wanted = next(section for section in offered if section.opus is not None)
    assert audio.opus == wanted.opus
    assert audio.lines[0].split(" ")[3:] == [str(wanted.opus)]
    assert f"a=fmtp:{audio.opus} minptime=10;useinbandfec=1" in audio.lines, "nobody asked for stereo"
    assert audio.direction == {"sendonly": "recvonly"}.get(wanted.direction, "sendrecv")
    assert sum(line.startswith("a=fingerprint:") for line in audio.lines) == 1
    assert any(line.startswith("a=fingerprint:sha-256 ") for line in audio.lines)
    assert any(line.startswith("a=candidate:") for line in audio.lines)
    group = re.search("a=group:BUNDLE (.*)\r", session)
    assert (group[1].split() if group else []) == [s.mid for s in answered if s.wanted and "BUNDLE" in text]
    await peer.close()


def test_who_makes_stereo_or_wants_it_gets_it() -> None:
    for parameters, stereo in [("stereo=1", True), ("minptime=10;sprop-stereo=1", True), ("useinbandfec=1", False)]:
        asked = Offer.parse(offer(section("audio", "0", OPUS, f"a=fmtp:111 {parameters}")))
        answered = asked.answer(offer(section("audio", "0", OPUS, "a=sendrecv")))
        assert (";stereo=1;sprop-stereo=1" in answered) is stereo


def test_an_address_is_checked_and_a_name_is_not_looked_up() -> None:
    lines = [f"a=candidate:{n} 1 udp 1 10.0.{n}.1 5000 typ host" for n in range(900)]
    lines += ["a=candidate:x 1 udp 1 example.org 5000 typ host", "a=candidate:y 1 udp 1 x.local 5000 typ host"]
    shown = Offer.parse(offer(section("audio", "0", OPUS, *lines))).shown
    assert shown.count("a=candidate:") == 30
    for text in ("example.org", ".local", "end-of-candidates"):
        assert text not in shown


def test_what_is_said_of_the_whole_session_is_not_shown_to_anybody() -> None:
    """aiortc would go through each line of it for each codec."""
    session = "".join(f"a=rtpmap:{n} x/1\r\na=rtcp-fb:* x\r\n" for n in range(1000))
    assert len(Offer.parse(offer(AUDIO, session=session)).shown) < 1000


def test_a_tag_is_taken_to_the_letter() -> None:
    tag = r"x\na=evil:1\g<0>"
    asked = Offer.parse(offer(section("audio", tag, OPUS, "a=sendrecv"), bundled=tag))
    answered = asked.answer(offer(section("audio", tag, OPUS, "a=sendrecv"), bundled=tag))
    assert f"a=group:BUNDLE {tag}\r\n" in answered
    assert "\na=evil" not in answered


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (offer(AUDIO) + "a=x\r\n" * 20_000, "expected at most 65536 bytes"),
        (offer(*[AUDIO] * 17), "expected at most 16 sections, got 17"),
        (offer(AUDIO, AUDIO), "expected an a=mid of its own"),
        (offer(VIDEOS["AV1"]), "expected an audio section"),
        (offer(section("audio", "0", OPUS, port=0)), "expected an audio section"),
        (offer(section("audio", "0", "0 PCMU/8000")), "expected Opus"),
        (offer(section("audio", "0", OPUS, transport=False)), "expected ICE credentials"),
        ("v=0\r\nm=audio\r\n", "expected SDP"),
        (
            offer(AUDIO, session="x\rm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"),
            "expected SDP: expected lines that end in CRLF",
        ),
        (offer(AUDIO, session="s=a\u2028m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"), "expected SDP: expected lines"),
        (offer(AUDIO).replace("abcd", "a" * 300), "expected ICE credentials"),
        (offer(AUDIO).replace("0123456789012345678901", "short"), "expected ICE credentials"),
        ("v=0\r\nm=audio 9 X y\r\na=rtpmap:z opus/48000/2\r\n", "expected SDP"),
        ("", "expected SDP"),
    ],
)
def test_what_is_no_offer_of_audio(text: str, problem: str) -> None:
    with pytest.raises(OfferError, match=f"^offer: {problem}"):
        Offer.parse(text)
