// The ways a stream gets to a player: by WHEP, and by HLS where that does not get through.
//
// Each takes a source `{ base, sid, session, hlsUrl }` and a host `{ element, start(element), receive(text, time) }`, and
// gives, once it plays, a transport `{ name, lost, position, latency, stats, stop() }`; `lost` is a promise.

import { Code, PlayerError, get, toPlayerError } from './player_error.js';
import { connect } from './webrtc.js';

const CONNECTING = 6000; // ms until WebRTC is given up
const SILENT = 4000; // ms without a payload, of which there are two a second: is the connection lost?
const TICK = 50; // ms between looks for payloads that are due
const UNKNOWN_LATENCY = 6; // s behind live that browsers play HLS, if they do not say
const OWNER = 'metadata.live-video.net';

/** Whether the browser plays HLS by itself. */
export function canPlayHls() {
  return typeof Audio !== 'undefined' && new Audio().canPlayType('application/vnd.apple.mpegurl') !== '';
}

/** By WebRTC, with the metadata on a data channel. */
export async function openWhep(source, host) {
  const pc = new RTCPeerConnection();
  pc.addTransceiver('audio', { direction: 'recvonly' });
  const lost = signal();
  const channel = pc.createDataChannel('timed-metadata');
  const began = performance.now();
  let heardAt = Infinity;
  const delay = new JitterBufferDelay(pc);
  let latency = 0.1;
  channel.onmessage = ({ data }) => {
    heardAt = performance.now();
    // It comes with the packet that it describes, which waits in the jitter buffer.
    setTimeout(() => transport.isStopped || host.receive(data, (performance.now() - began) / 1000), 1000 * latency);
  };
  channel.onclose = lost.give;
  const connected = new Promise((resolve, reject) => {
    const refuse = () => reject(new PlayerError(Code.NETWORK, 'WebRTC does not get through.'));
    setTimeout(refuse, CONNECTING);
    pc.onconnectionstatechange = () => {
      if (pc.connectionState === 'connected') resolve();
      if (['failed', 'closed'].includes(pc.connectionState)) {
        refuse();
        lost.give();
      }
    };
  });
  connected.catch(() => {});
  let element;
  pc.ontrack = ({ track }) => {
    element = host.element;
    element.srcObject = new MediaStream([track]);
  };
  const watching = setInterval(async () => {
    // Without a database, the server makes no payloads; the audio tells whether it is there.
    if (performance.now() - heardAt > SILENT && !(await delay.flows())) lost.give();
    latency = (await delay.measure()) ?? latency;
  }, 500);
  const transport = {
    name: 'whep',
    isStopped: false,
    lost: lost.given,
    get position() {
      return (performance.now() - began) / 1000;
    },
    get latency() {
      return latency;
    },
    get stats() {
      return { connectionState: pc.connectionState, jitterBufferDelay: latency };
    },
    stop() {
      transport.isStopped = true;
      clearInterval(watching);
      if (element?.srcObject) element.srcObject = null;
      disconnect ? disconnect() : pc.close();
    },
  };
  let disconnect;
  return begun(transport, async () => {
    disconnect = await connect(pc, `${source.base}/whep/${source.sid}`, source.session);
    await connected;
    heardAt = performance.now();
    await host.start(host.element);
  });
}

/** The transport, once it has begun; if that fails, it is stopped. */
async function begun(transport, begin) {
  try {
    await begin();
    return transport;
  } catch (error) {
    transport.stop();
    throw toPlayerError(error);
  }
}

/** By HLS: by hls.js if it is given, or by the browser itself. */
export async function openHls(source, host, Hls) {
  if (Hls?.isSupported()) return openHlsJs(source, host, Hls);
  if (!canPlayHls()) throw new PlayerError(Code.NOT_SUPPORTED, 'WebRTC does not get through, and this browser does not play HLS.');
  await untilPlayable(source.hlsUrl);
  const element = host.element;
  const lost = signal();
  element.srcObject = null;
  element.src = source.hlsUrl.href;
  const events = new EventSource(eventsUrl(source));
  const pending = new Set();
  const latency = () => {
    const { seekable, currentTime } = element;
    return seekable.length && Number.isFinite(seekable.end(0)) ? Math.max(0, seekable.end(0) - currentTime) + 1 : UNKNOWN_LATENCY;
  };
  events.onmessage = ({ data }) => {
    const timer = setTimeout(() => {
      pending.delete(timer);
      host.receive(data, element.currentTime);
    }, 1000 * latency());
    pending.add(timer);
  };
  element.onerror = element.onended = lost.give;
  const transport = {
    name: 'hls',
    lost: lost.given,
    get position() {
      return element.currentTime;
    },
    get latency() {
      return latency();
    },
    stats: {},
    stop() {
      events.close();
      for (const timer of pending) clearTimeout(timer);
      element.onerror = element.onended = null;
      element.removeAttribute('src');
      element.load();
    },
  };
  return begun(transport, () => host.start(element));
}

async function openHlsJs(source, host, Hls) {
  await untilPlayable(source.hlsUrl);
  const element = host.element;
  const lost = signal();
  const cues = [];
  const hls = new Hls({ lowLatencyMode: true, maxLiveSyncPlaybackRate: 1.05 });
  hls.on(Hls.Events.FRAG_PARSING_METADATA, (_, { samples }) => {
    for (const { pts, data } of samples) for (const text of privateTexts(data)) cues.push({ pts, text });
    cues.sort((one, other) => one.pts - other.pts);
  });
  hls.on(Hls.Events.ERROR, (_, { fatal }) => fatal && lost.give());
  const looking = setInterval(() => {
    while (cues.length && cues[0].pts <= element.currentTime) {
      const { pts, text } = cues.shift();
      host.receive(text, pts);
    }
  }, TICK);
  element.onended = lost.give;
  const transport = {
    name: 'hls.js',
    lost: lost.given,
    get position() {
      return element.currentTime;
    },
    get latency() {
      return hls.latency;
    },
    get stats() {
      return { latency: hls.latency, bandwidthEstimate: hls.bandwidthEstimate };
    },
    stop() {
      clearInterval(looking);
      element.onended = null;
      hls.destroy();
    },
  };
  return begun(transport, async () => {
    element.srcObject = null;
    hls.loadSource(source.hlsUrl.href);
    hls.attachMedia(element);
    await host.start(element);
  });
}

/** Sees that the playlist is there, and not that of a stream that has ended, which is there for a while. */
async function untilPlayable(hlsUrl) {
  const playlist = await get(hlsUrl);
  if (playlist.includes('#EXT-X-ENDLIST')) throw new PlayerError(Code.NOT_AVAILABLE, 'The stream has ended.');
}

function eventsUrl(source) {
  const url = new URL(`${source.base}/v1/PlayerStreamers/${source.sid}/TimedMetadata`);
  if (source.session) url.searchParams.set('token', source.session);
  return url;
}

/** The texts in an ID3v2.4 tag's PRIV frames of our owner. */
function* privateTexts(tag) {
  const number = (at) => (tag[at] << 21) | (tag[at + 1] << 14) | (tag[at + 2] << 7) | tag[at + 3];
  const decode = (from, to) => new TextDecoder().decode(tag.subarray(from, to));
  for (let at = 10; at + 10 < tag.length; ) {
    const [end, start] = [at + 10 + number(at + 4), at + 10];
    const ownerEnd = tag.indexOf(0, start);
    if (decode(at, at + 4) === 'PRIV' && decode(start, ownerEnd) === OWNER) yield decode(ownerEnd + 1, end);
    if (end <= at + 10) return;
    at = end;
  }
}

/** How long audio has lately waited in a connection's jitter buffer, in seconds. */
class JitterBufferDelay {
  #pc;
  #delay = 0;
  #emitted = 0;
  #received = 0;

  constructor(pc) {
    this.#pc = pc;
  }

  /** Whether audio has come since the last call. */
  async flows() {
    let received = 0;
    for (const { type, packetsReceived } of (await this.#pc.getStats()).values()) {
      if (type === 'inbound-rtp') received += packetsReceived;
    }
    const flows = received > this.#received;
    this.#received = received;
    return flows;
  }

  async measure() {
    for (const { type, jitterBufferDelay, jitterBufferEmittedCount } of (await this.#pc.getStats()).values()) {
      if (type !== 'inbound-rtp' || !(jitterBufferEmittedCount > this.#emitted)) continue;
      const lately = (jitterBufferDelay - this.#delay) / (jitterBufferEmittedCount - this.#emitted);
      [this.#delay, this.#emitted] = [jitterBufferDelay, jitterBufferEmittedCount];
      return lately;
    }
    return undefined;
  }
}

function signal() {
  let give;
  const given = new Promise((resolve) => (give = resolve));
  return { given, give };
}
