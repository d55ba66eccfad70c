// A WHIP publisher and a WHEP listener by werift, on loopback only.
//
//   node werift.mjs publish|listen URL [--seconds 5] [--token T] [--opus FILE]
//
// FILE has Opus packets of 20 ms, each after its length in two bytes: publish sends them round and round (silence, if
// there is no FILE), listen writes them. Prints a line of JSON; exits with 0 if it was connected.

import { parseArgs } from 'node:util';
import { MediaStreamTrack, RTCPeerConnection, RtpHeader, RtpPacket } from 'werift';
import { every, packetWriter, readPackets, request } from './packets.mjs';

const PATIENCE = 10_000; // ms until it counts as not connected
const FRAME = 20; // ms

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '5' },
    token: { type: 'string' },
    opus: { type: 'string' },
  },
});
const [what, url] = positionals;
const result = { connected: false, connect_ms: 0, sent: 0, received: 0, messages: 0, error: '' };

const pc = new RTCPeerConnection({
  iceServers: [], // the default is Google's
  iceUseIpv4: false, // of the machine's own addresses, none
  iceUseIpv6: false,
  iceAdditionalHostAddresses: ['127.0.0.1'],
  iceInterfaceAddresses: { udp4: '127.0.0.1' }, // what sockets are bound to, or else to all
});
const connected = new Promise((resolve, reject) => {
  pc.connectionStateChange.subscribe((state) => {
    if (state === 'connected') resolve();
    if (state === 'failed') reject(new Error(`connection ${state}, ICE ${pc.iceConnectionState}`));
  });
  setTimeout(() => reject(new Error(`not connected after ${PATIENCE} ms, ICE ${pc.iceConnectionState}`)), PATIENCE);
});
connected.catch(() => {});
let resource;
try {
  const send = what === 'publish' ? publisher() : listener();
  await pc.setLocalDescription(await pc.createOffer()); // which gathers all candidates
  const began = performance.now();
  const response = await request('POST', url, options.token, pc.localDescription.sdp);
  const body = await response.text();
  if (response.status !== 201) throw new Error(`${response.status}: ${body}`);
  resource = new URL(response.headers.get('location'), url);
  await pc.setRemoteDescription({ type: 'answer', sdp: body });
  await connected;
  result.connected = true;
  result.connect_ms = Math.round(performance.now() - began);
  await every(FRAME, 1000 * options.seconds, send);
} catch (error) {
  result.error = error.message;
}
if (resource) await request('DELETE', resource, options.token).catch(() => {});
console.log(JSON.stringify(result));
process.exit(result.connected ? 0 : 1); // at once: timers of its would keep the process

/** Prepares it, and gives what sends the next packet. */
function publisher() {
  const track = new MediaStreamTrack({ kind: 'audio' });
  pc.addTransceiver(track, { direction: 'sendonly' });
  const packets = readPackets(options.opus);
  return () => {
    const sequenceNumber = result.sent % 2 ** 16;
    const timestamp = (result.sent * 960) % 2 ** 32;
    // It fills in payload type and SSRC.
    track.writeRtp(new RtpPacket(new RtpHeader({ sequenceNumber, timestamp }), packets[result.sent % packets.length]));
    result.sent++;
  };
}

function listener() {
  pc.addTransceiver('audio', { direction: 'recvonly' });
  pc.createDataChannel('timed-metadata').onMessage.subscribe(() => result.messages++);
  const write = packetWriter(options.opus);
  pc.onTrack.subscribe((track) => {
    track.onReceiveRtp.subscribe(({ payload }) => {
      result.received++;
      write(payload);
    });
  });
  return () => {};
}
