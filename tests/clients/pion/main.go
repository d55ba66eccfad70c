// A WHIP publisher and a WHEP listener by Pion, on loopback only.
//
//	pion publish|listen URL [--seconds 5] [--token T] [--opus FILE] [--rsa] [--gcm] [--sendrecv] [--hide] [--tcp] [--restart]
//
// FILE has Opus packets of 20 ms, each after its length in two bytes: publish sends them round and round (silence, if
// there is no FILE), listen writes them. Prints a line of JSON; exits with 0 if it was connected.
package main

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
)

const (
	frame   = 20 * time.Millisecond
	patient = 10 * time.Second // until it counts as not connected
)

var (
	flags    = flag.NewFlagSet("pion publish|listen URL", flag.ExitOnError)
	seconds  = flags.Float64("seconds", 5, "how long to stay")
	token    = flags.String("token", "", "access token")
	opus     = flags.String("opus", "", "Opus packets: to send, or to write")
	withRSA  = flags.Bool("rsa", false, "an RSA certificate, instead of one on P-256")
	onlyGCM  = flags.Bool("gcm", false, "SRTP with AES-GCM only")
	sendrecv = flags.Bool("sendrecv", false, "publish: hear the others, too")
	hide     = flags.Bool("hide", false, "offer no candidates, as if none could be resolved")
	restarts = flags.Bool("restart", false, "begin another ICE session once it is connected")
	onlyTCP  = flags.Bool("tcp", false, "connect by TCP, as if no UDP came through")
	anywhere = flags.Bool("anywhere", false, "by any address but loopback, of IPv4 and IPv6")

	connected                bool
	connectTime              time.Duration
	sent, received, messages atomic.Int64
	silence                  = []byte{0, 3, 0xf8, 0xff, 0xfe}
)

func main() {
	_ = flags.Parse(os.Args[min(3, len(os.Args)):])
	if len(os.Args) < 3 || os.Args[1] != "publish" && os.Args[1] != "listen" {
		flags.Usage()
		os.Exit(2)
	}
	problem := run(os.Args[2], os.Args[1] == "publish")
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{
		"connected": connected, "connect_ms": connectTime.Milliseconds(), "sent": sent.Load(),
		"received": received.Load(), "messages": messages.Load(), "error": problem,
	})
	if !connected {
		os.Exit(1)
	}
}

func run(address string, publishes bool) (problem string) {
	defer func() {
		if failure := recover(); failure != nil {
			problem = fmt.Sprint(failure)
		}
	}()
	pc := newPeerConnection()
	defer pc.Close()
	states := make(chan webrtc.PeerConnectionState, 16)
	pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) { states <- state })
	stay := listen
	if publishes {
		stay = publish
	}
	staying := stay(pc)
	gathered := webrtc.GatheringCompletePromise(pc)
	check(pc.SetLocalDescription(must(pc.CreateOffer(nil))))
	<-gathered
	began := time.Now()
	answer, resource := post(address, pc.LocalDescription().SDP)
	defer func() { _, _ = request(http.MethodDelete, resource, "") }()
	check(pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}))
	for end := time.After(patient); ; {
		select {
		case state := <-states:
			switch {
			case state == webrtc.PeerConnectionStateConnected:
				connected, connectTime = true, time.Since(began)
				end = time.After(time.Duration(*seconds * float64(time.Second)))
				go staying()
				if *restarts {
					*restarts = false
					restart(pc, resource)
				}
			case state != webrtc.PeerConnectionStateConnecting:
				panic(fmt.Sprintf("connection %s, ICE %s", state, pc.ICEConnectionState()))
			}
		case <-end:
			if !connected {
				panic(fmt.Sprintf("not connected after %s, ICE %s", patient, pc.ICEConnectionState()))
			}
			return ""
		}
	}
}

func newPeerConnection() *webrtc.PeerConnection {
	settings := webrtc.SettingEngine{}
	if *anywhere {
		settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6})
	} else {
		settings.SetIncludeLoopbackCandidate(true)
		settings.SetIPFilter(net.IP.IsLoopback)
		settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	}
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled) // else it joins a multicast group
	if *onlyTCP {
		settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeTCP4})
	}
	if *onlyGCM {
		settings.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM)
	}
	configuration := webrtc.Configuration{} // its default is a certificate on P-256
	if *withRSA {
		certificate := must(webrtc.GenerateCertificate(must(rsa.GenerateKey(rand.Reader, 2048))))
		configuration.Certificates = []webrtc.Certificate{*certificate}
	}
	return must(webrtc.NewAPI(webrtc.WithSettingEngine(settings)).NewPeerConnection(configuration))
}

// publish prepares it, and gives what to do when connected.
func publish(pc *webrtc.PeerConnection) func() {
	direction := webrtc.RTPTransceiverDirectionSendonly
	if *sendrecv {
		direction = webrtc.RTPTransceiverDirectionSendrecv
	}
	pc.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { receive(track, io.Discard) })
	codec := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48_000, Channels: 2}
	track := must(webrtc.NewTrackLocalStaticSample(codec, "audio", "pion"))
	must(pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: direction}))
	data := silence
	if *opus != "" {
		data = must(os.ReadFile(*opus))
	}
	return func() {
		rest := data
		for range time.Tick(frame) {
			end := 2 + int(binary.BigEndian.Uint16(rest))
			if track.WriteSample(media.Sample{Data: rest[2:end], Duration: frame}) != nil {
				return
			}
			sent.Add(1)
			if rest = rest[end:]; len(rest) == 0 {
				rest = data
			}
		}
	}
}

func listen(pc *webrtc.PeerConnection) func() {
	output := io.Discard
	if *opus != "" {
		output = must(os.Create(*opus))
	}
	pc.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { receive(track, output) })
	direction := webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}
	must(pc.AddTransceiverFromKind(webrtc.RTPCodecTypeAudio, direction))
	must(pc.CreateDataChannel("timed-metadata", nil)).OnMessage(func(webrtc.DataChannelMessage) { messages.Add(1) })
	return func() {}
}

func receive(track *webrtc.TrackRemote, output io.Writer) {
	for {
		packet, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		received.Add(1)
		_, _ = output.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packet.Payload))), packet.Payload...))
	}
}

func post(address, offer string) (answer, resource string) {
	if *hide {
		offer = regexp.MustCompile(`a=candidate:.*\r\n`).ReplaceAllString(offer, "")
	}
	response := must(request(http.MethodPost, address, offer))
	defer response.Body.Close()
	body := must(io.ReadAll(response.Body))
	if response.StatusCode != http.StatusCreated {
		panic(fmt.Sprintf("%s: %s", response.Status, body))
	}
	return string(body), must(response.Location()).String()
}

// restart begins another ICE session, by WHIP's PATCH (RFC 9725, section 4.3.2).
func restart(pc *webrtc.PeerConnection, resource string) {
	gathered := webrtc.GatheringCompletePromise(pc)
	check(pc.SetLocalDescription(must(pc.CreateOffer(&webrtc.OfferOptions{ICERestart: true}))))
	<-gathered
	wanted := regexp.MustCompile(`a=(ice-ufrag|ice-pwd|candidate):.*\r\n`)
	fragment := strings.Join(wanted.FindAllString(pc.LocalDescription().SDP, -1), "")
	patch := must(http.NewRequest(http.MethodPatch, resource, strings.NewReader(fragment)))
	patch.Header.Set("Content-Type", "application/trickle-ice-sdpfrag")
	patch.Header.Set("If-Match", "*")
	response := must(http.DefaultClient.Do(patch))
	defer response.Body.Close()
	body := string(must(io.ReadAll(response.Body)))
	if response.StatusCode != http.StatusOK {
		panic(fmt.Sprintf("restart: %s: %s", response.Status, body))
	}
	answer := regexp.MustCompile(`a=(candidate:.*|end-of-candidates)\r\n`).ReplaceAllString(pc.CurrentRemoteDescription().SDP, "")
	for _, name := range []string{"ice-ufrag", "ice-pwd"} {
		line := regexp.MustCompile(`a=` + name + `:.*`)
		answer = line.ReplaceAllString(answer, strings.TrimSpace(line.FindString(body)))
	}
	answer += strings.Join(regexp.MustCompile(`a=candidate:.*\r\n`).FindAllString(body, -1), "")
	check(pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}))
}

func request(method, address, body string) (*http.Response, error) {
	request := must(http.NewRequest(method, address, strings.NewReader(body)))
	request.Header.Set("Content-Type", "application/sdp")
	if *token != "" {
		request.Header.Set("Authorization", "Bearer "+*token)
	}
	return http.DefaultClient.Do(request)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}
