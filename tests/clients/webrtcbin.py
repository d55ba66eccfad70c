"""A WHIP publisher and a WHEP listener by GStreamer's webrtcbin (Debian's, by /usr/bin/python3), on loopback only.

    webrtcbin.py publish URL [--seconds 5] [--token T] [--frequency 440]
    webrtcbin.py listen URL [--seconds 5] [--token T]

Prints a line of JSON, with the level of what is heard in dBFS; exits with 0 if it was connected.
"""

import argparse
import contextlib
import json
import sys
import time
import urllib.error
import urllib.request
from urllib.parse import urljoin

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

OPUS = "application/x-rtp,media=audio,encoding-name=OPUS,payload=111,clock-rate=48000,encoding-params=(string)2"
TONE = "audiotestsrc is-live=true wave=sine freq={} volume=0.2 samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=2"
SEND = f"{TONE} ! opusenc ! rtpopuspay name=packets pt=111 ! {OPUS} ! webrtcbin name=webrtc"
RECEIVE = "queue ! rtpopusdepay ! opusdec ! audioconvert ! level ! fakesink async=false"
PATIENCE = 10.0  # seconds until it counts as not connected


class Client:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.result = {"connected": False, "connect_ms": 0, "sent": 0, "received": 0, "messages": 0, "error": ""}
        self.levels: list[float] = []
        self.loop = GLib.MainLoop()
        self.resource = ""
        self.began = 0.0
        publishes = arguments.what == "publish"
        self.pipeline = Gst.parse_launch(SEND.format(arguments.frequency)) if publishes else Gst.Pipeline()
        if not publishes:
            self.pipeline.add(Gst.ElementFactory.make("webrtcbin", "webrtc"))
        self.webrtc = self.pipeline.get_by_name("webrtc")
        self.webrtc.props.bundle_policy = GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE
        self.ice = self.webrtc.props.ice_agent  # kept, as webrtcbin has no reference of its own once Python took one
        self.ice.props.ice_tcp = False
        self.nice = self.ice.props.agent
        self.nice.props.upnp = False  # else libnice looks for routers by multicast
        self.ice.emit("add-local-ip-address", "127.0.0.1")  # else it leaves loopback out
        self.webrtc.connect("notify::ice-gathering-state", lambda *_: GLib.idle_add(self.offer))
        self.webrtc.connect("notify::connection-state", lambda *_: GLib.idle_add(self.changed))
        self.webrtc.connect("pad-added", self.hear)
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", lambda _, message: self.fail(message.parse_error()[0].message))
        bus.connect("message::element", self.level)
        self.pipeline.set_state(Gst.State.READY)  # data channels need that
        if publishes:
            self.count(self.pipeline.get_by_name("packets").get_static_pad("src"), "sent")
            self.webrtc.emit("get-transceiver", 0).props.direction = GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY
        else:
            direction = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
            self.webrtc.emit("add-transceiver", direction, Gst.Caps.from_string(OPUS))
            self.channel = self.webrtc.emit("create-data-channel", "timed-metadata", None)
            self.channel.connect("on-message-string", lambda *_: self.add("messages"))

    def run(self) -> bool:
        self.pipeline.set_state(Gst.State.PLAYING)
        self.webrtc.emit("create-offer", None, Gst.Promise.new_with_change_func(self.created))
        GLib.timeout_add(int(PATIENCE * 1000), lambda: self.result["connected"] or self.fail("not connected"))
        self.loop.run()
        if self.resource:
            with contextlib.suppress(OSError):
                self.request("DELETE", self.resource)
        self.pipeline.set_state(Gst.State.NULL)
        level = round(max(self.levels), 1) if self.levels else None
        print(json.dumps(self.result | {"level": level}), flush=True)
        return self.result["connected"]

    def created(self, promise: Gst.Promise) -> None:
        reply = promise.get_reply()  # kept: the offer is a part of it
        self.webrtc.emit("set-local-description", reply.get_value("offer"), Gst.Promise.new())

    def offer(self) -> None:
        """With all candidates, and once."""
        if self.began or self.webrtc.props.ice_gathering_state != GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            return
        self.began = time.monotonic()
        offer = self.webrtc.props.local_description.sdp.as_text()
        try:
            response = self.request("POST", self.arguments.url, offer.encode())
        except urllib.error.HTTPError as error:
            self.fail(f"{error.code}: {error.read().decode()}")
        except OSError as error:
            self.fail(str(error))
        else:
            self.resource = urljoin(self.arguments.url, response.headers["Location"])
            _, answer = GstSdp.SDPMessage.new_from_text(response.read().decode())
            answer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, answer)
            self.webrtc.emit("set-remote-description", answer, Gst.Promise.new())

    def request(self, method: str, url: str, body: bytes | None = None):
        headers = {"Content-Type": "application/sdp"}
        if self.arguments.token:
            headers["Authorization"] = f"Bearer {self.arguments.token}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return opener.open(urllib.request.Request(url, body, headers, method=method), timeout=5)

    def changed(self) -> None:
        state = self.webrtc.props.connection_state
        if state == GstWebRTC.WebRTCPeerConnectionState.CONNECTED and not self.result["connected"]:
            self.result |= {"connected": True, "connect_ms": round((time.monotonic() - self.began) * 1000)}
            GLib.timeout_add(int(self.arguments.seconds * 1000), self.loop.quit)
        elif state == GstWebRTC.WebRTCPeerConnectionState.FAILED:
            self.fail("connection failed")

    def fail(self, error: str) -> None:
        self.result["error"] = self.result["error"] or error
        self.loop.quit()

    def add(self, what: str) -> None:
        self.result[what] += 1

    def count(self, pad: Gst.Pad, what: str) -> None:
        def passes(*_: object) -> Gst.PadProbeReturn:
            self.result[what] += self.result["connected"]
            return Gst.PadProbeReturn.OK

        pad.add_probe(Gst.PadProbeType.BUFFER, passes)

    def hear(self, _: Gst.Element, pad: Gst.Pad) -> None:
        if pad.direction == Gst.PadDirection.SRC:
            self.count(pad, "received")
            output = Gst.parse_bin_from_description(RECEIVE, True)
            self.pipeline.add(output)
            output.sync_state_with_parent()
            pad.link(output.get_static_pad("sink"))

    def level(self, _: Gst.Bus, message: Gst.Message) -> None:
        if message.get_structure().get_name() == "level":
            self.levels.append(max(message.get_structure().get_value("rms")))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["publish", "listen"])
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--token", default="")
    parser.add_argument("--frequency", type=float, default=440.0)
    Gst.init(None)
    sys.exit(not Client(parser.parse_args()).run())


if __name__ == "__main__":
    main()
