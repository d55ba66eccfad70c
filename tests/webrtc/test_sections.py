"""SDP of many sections, as text."""

import pytest

from audiomixer.webrtc.sections import answer_all, excerpt, split

SESSION = "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2 3 4\r\n"
TRANSPORT = "a=ice-ufrag:u\r\na=ice-pwd:p\r\na=fingerprint:sha-256 AA\r\na=setup:actpass\r\n"


def audio(mid: str, ssrc: int, direction: str = "sendonly", codec: str = "opus/48000/2", port: int = 9) -> str:
    return (
        f"m=audio {port} UDP/TLS/RTP/SAVPF 63 111\r\nc=IN IP4 0.0.0.0\r\n{TRANSPORT}a=mid:{mid}\r\na={direction}\r\n"
        "a=extmap:2 urn:ietf:params:rtp-hdrext:ssrc-audio-level vad=on\r\na=extmap:3 urn:other\r\n"
        f"a=rtpmap:63 red/48000/2\r\na=rtpmap:111 {codec}\r\na=ssrc:{ssrc} cname:x\r\na=ssrc:{ssrc} msid:a b\r\n"
    )


DATA = f"m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n{TRANSPORT}a=mid:0\r\na=sctp-port:5000\r\n"
VIDEO = f"m=video 9 UDP/TLS/RTP/SAVPF 96\r\n{TRANSPORT}a=mid:3\r\na=sendonly\r\na=rtpmap:96 VP8/90000\r\n"
OFFER = SESSION + DATA + audio("1", 11) + audio("2", 22, "inactive") + VIDEO + audio("4", 44, codec="pcmu/8000")
ANSWERED = (
    "v=0\r\no=- 7 7 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n"
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\na=ice-ufrag:x\r\na=ice-pwd:y\r\n"
    "a=fingerprint:sha-256 BB\r\na=setup:active\r\na=candidate:1 1 udp 1 127.0.0.1 5 typ host\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:1\r\na=recvonly\r\na=candidate:1 1 udp 1 127.0.0.1 5 typ host\r\n"
)


def test_what_an_offer_has() -> None:
    session, sections = split(OFFER)
    assert session == SESSION
    assert [section.kind for section in sections] == ["application", "audio", "audio", "video", "audio"]
    assert [section.mid for section in sections] == ["0", "1", "2", "3", "4"]
    assert [section.sends for section in sections[1:]] == [True, False, True, True]
    assert [section.ssrc for section in sections] == [None, 11, 22, None, 44]
    assert [section.opus for section in sections] == [None, 111, 111, None, None]
    assert "".join([session, *(section.text for section in sections)]) == OFFER
    assert not split(SESSION + audio("1", 1, port=0))[1][0].sends, "it is rejected"


def test_an_excerpt() -> None:
    session, sections = split(OFFER)
    some = excerpt(session, sections[:2])
    assert "a=group:BUNDLE 0 1\r\n" in some
    assert some.count("m=") == 2
    assert some.endswith(audio("1", 11))


def test_the_answer_has_all_sections_in_order() -> None:
    _, sections = split(OFFER)
    session, answers = split(answer_all(sections, ANSWERED, 3))
    assert "o=- 7 3 IN" in session
    assert "a=group:BUNDLE 0 1 2\r\n" in session
    assert [section.mid for section in answers] == ["0", "1", "2", "3", "4"]
    ports = [section.lines[0].split(" ")[1] for section in answers]
    assert ports == ["9", "9", "9", "0", "0"], "neither video nor other codecs"
    assert [line for line in answers[1].lines if line in {"a=recvonly", "a=inactive"}] == ["a=recvonly"]
    assert "a=inactive" in answers[2].lines
    for answer in answers[1:3]:
        assert {"a=ice-ufrag:x", "a=ice-pwd:y", "a=fingerprint:sha-256 BB", "a=setup:active"} <= set(answer.lines)
        assert answer.lines[0] == "m=audio 9 UDP/TLS/RTP/SAVPF 111", "no RED"
        assert "a=extmap:2 urn:ietf:params:rtp-hdrext:ssrc-audio-level" in answer.lines
    assert sum("a=candidate:" in line for line in answers[1].lines) == 1


@pytest.mark.parametrize("sdp", ["", "nonsense", "v=0\r\nm=audio\r\n", "v=0\r\nm=audio 9 X 1\r\na=ssrc:x y\r\n"])
def test_what_is_none(sdp: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        split(sdp)
