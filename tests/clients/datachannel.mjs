// A WHIP publisher and a WHEP listener by libdatachannel (node-datachannel), on loopback only.
//
//   node datachannel.mjs publish|listen URL [--seconds 5] [--token T] [--opus FILE] [--log Debug]
//
// FILE has Opus packets of 20 ms, each after its length in two bytes: publish sends them round and round (silence, if
// there is no FILE), listen writes them. Prints a line of JSON; exits with 0 if it was connected.

import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { Audio, PeerConnection, initLogger } from 'node-datachannel';
import { every, packetWriter, readPackets, request } from './packets.mjs';

const PATIENCE = 10_000; // ms until it counts as not connected
const FRAME = 20; // ms
const PAYLOAD_TYPE = 111;

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '5' },
    token: { type: 'string' },
    opus: { type: 'string' },
    log: { type: 'string' },
  },
});
const [what, url] = positionals;
const result = { connected: false, connect_ms: 0, sent: 0, received: 0, messages: 0, error: '' };
if (options.log) initLogger(options.log, (level, text) => console.error(level, text));

const pc = new PeerConnection(what, { iceServers: [], bindAddress: '127.0.0.1', disableAutoNegotiation: true });
const connected = new Promise((resolve, reject) => {
  pc.onStateChange((state) => {
    if (state === 'connected') resolve();
    if (state === 'failed' || state === 'closed') reject(new Error(`connection ${state}, ICE ${pc.iceState()}`));
  });
  setTimeout(() => reject(new Error(`not connected after ${PATIENCE} ms, ICE ${pc.iceState()}`)), PATIENCE).unref();
});
connected.catch(() => {});
let resource;
try {
  const send = what === 'publish' ? publisher() : listener();
  const offer = await gather();
  const began = performance.now();
  const response = await request('POST', url, options.token, offer);
  const body = await response.text();
  if (response.status !== 201) throw new Error(`${response.status}: ${body}`);
  resource = new URL(response.headers.get('location'), url);
  pc.setRemoteDescription(body, 'answer');
  await connected;
  result.connected = true;
  result.connect_ms = Math.round(performance.now() - began);
  await every(FRAME, 1000 * options.seconds, send);
} catch (error) {
  result.error = error.message;
}
if (resource) await request('DELETE', resource, options.token).catch(() => {});
console.log(JSON.stringify(result));
process.exit(result.connected ? 0 : 1); // at once: its threads would keep the process

/** Prepares it, and gives what sends the next packet. */
function publisher() {
  const ssrc = randomInt(1, 2 ** 32);
  const audio = new Audio('0', 'SendOnly');
  audio.addOpusCodec(PAYLOAD_TYPE);
  audio.addSSRC(ssrc, 'datachannel', 'audio', 'audio');
  const track = pc.addTrack(audio);
  const packets = readPackets(options.opus);
  return () => {
    const header = Buffer.alloc(12);
    header[0] = 0x80;
    header[1] = PAYLOAD_TYPE;
    header.writeUInt16BE(result.sent % 2 ** 16, 2);
    header.writeUInt32BE((result.sent * 960) % 2 ** 32, 4);
    header.writeUInt32BE(ssrc, 8);
    if (!track.isOpen()) return; // media are encrypted a moment after it is connected
    result.sent += track.sendMessageBinary(Buffer.concat([header, packets[result.sent % packets.length]]));
  };
}

function listener() {
  const audio = new Audio('0', 'RecvOnly');
  audio.addOpusCodec(PAYLOAD_TYPE);
  const track = pc.addTrack(audio);
  const channel = pc.createDataChannel('timed-metadata');
  channel.onMessage(() => result.messages++);
  const write = packetWriter(options.opus);
  track.onMessage((packet) => {
    if (packet[1] !== PAYLOAD_TYPE && packet[1] !== PAYLOAD_TYPE + 128) return; // RTCP
    result.received++;
    write(packet.subarray(12));
  });
  return () => [track, channel]; // kept: when they are collected as garbage, they close
}

function gather() {
  return new Promise((resolve) => {
    pc.onGatheringStateChange((state) => state === 'complete' && resolve(pc.localDescription().sdp));
    pc.setLocalDescription('offer');
  });
}
