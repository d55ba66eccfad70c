// The player: `Player.connect(accessToken)`, with the interface of the retired service's web player.
//
// It plays by WHEP, with the metadata on a data channel, and by HLS where that does not get through: by hls.js if the
// page gives it, or by the browser itself. When the connection is lost it comes back by itself.

import { connect as whep } from './webrtc.js';

const CONNECTING = 6000; // ms until HLS is tried instead
const ANSWERING = 8000; // ms for a server to answer
const SILENT = 2500; // ms without a payload, of which there are two a second: the connection is lost
const FIRST_PAUSE = 250; // ms until the next try, twice as long each time
const LONGEST_PAUSE = 2000;
const PATIENCE = 600_000; // ms until no more tries are made
const TICK = 50; // ms between looks for payloads that are due
const UNKNOWN_LATENCY = 6; // s behind live that browsers play HLS, if they do not say
const OWNER = 'metadata.live-video.net';

const State = Object.freeze({ Idle: 'idle', Ready: 'ready', Buffering: 'buffering', Playing: 'playing', Ended: 'ended' });
const EventName = Object.freeze({
  StateChanged: 'stateChanged',
  TimedMetadataReceived: 'timedMetadataReceived',
  Rebuffering: 'rebuffering',
  VolumeChanged: 'volumeChanged',
  DurationChanged: 'durationChanged',
  Error: 'error',
});
const Code = Object.freeze({
  INVALID_TOKEN: 20101,
  MEDIA: 56000,
  AUTHORIZATION: 56001,
  INVALID_DATA: 56002,
  INVALID_PARAMETER: 56003,
  INVALID_STATE: 56004,
  NETWORK: 56005,
  NETWORK_IO: 56006,
  NOT_AVAILABLE: 56007,
  TOO_MANY_REQUESTS: 56008,
  NOT_SUPPORTED: 56009,
  NO_SOURCE: 56010,
  TIMEOUT: 56011,
});

/** What went wrong, with one of `PlayerError.Code`. */
export class PlayerError extends Error {
  static Code = Code;

  constructor(code, message) {
    super(message);
    this.name = 'PlayerError';
    this.code = code;
  }
}

/** Plays one stream. */
export class Player {
  static State = State;
  static Event = EventName;
  static Error = PlayerError;
  static version = '1';
  static LogLevel = Object.freeze({ Debug: 'debug', Info: 'info', Warn: 'warn', Error: 'error' });
  static logLevel = 'error';
  /** Accepted, as old applications ask for it: nothing is told. */
  static telemetry = Object.freeze({ subscribe() {}, unsubscribe() {} });

  static setLogLevel(level) {
    Player.logLevel = level;
  }

  static get isSupported() {
    return 'RTCPeerConnection' in globalThis || canPlayHls();
  }

  /**
   * Connects with an access token that holds a playback grant. The grant has to be fresh; once connected, playing may
   * start at any time, and go on for as long as the stream does.
   */
  static async connect(accessToken, options = {}) {
    const { playbackUrl, playerStreamerSid } = granted(accessToken);
    return Player.connectTo(playbackUrl, { ...options, playerStreamerSid });
  }

  /** Connects with a playback URL alone. */
  static async connectTo(playbackUrl, options = {}) {
    if (!Player.isSupported) throw new PlayerError(Code.NOT_SUPPORTED, 'This browser plays neither WebRTC nor HLS.');
    let url;
    try {
      url = new URL(playbackUrl);
    } catch {
      throw new PlayerError(Code.INVALID_TOKEN, 'playbackUrl: expected a URL');
    }
    const found = /^(.*)\/hls\/([^/]+)\/index\.m3u8$/.exec(url.origin + url.pathname);
    if (!found) throw new PlayerError(Code.INVALID_TOKEN, 'playbackUrl: expected …/hls/VJ…/index.m3u8');
    const playlist = await get(url);
    const media = playlist.split('\n').find((line) => line.startsWith('audio.m3u8'));
    if (!media) throw new PlayerError(Code.INVALID_DATA, 'The playlist is none.');
    const mediaUrl = new URL(media, url);
    return new Player(found[1], options.playerStreamerSid ?? found[2], mediaUrl, options);
  }

  #base;
  #hlsUrl;
  #session;
  #options;
  #handlers = new Map();
  #state = State.Idle;
  #element = new Audio();
  #volume = 1;
  #muted = false;
  #transport; // what plays: { name, stop(), position, latency, stats() }
  #attempt = 0; // stale work sees by this that it is
  #newest = -1;
  #played = 0; // s, by transports that are gone

  /** @private Use `Player.connect`. */
  constructor(base, sid, hlsUrl, options) {
    this.#base = base;
    this.#hlsUrl = hlsUrl;
    this.#session = hlsUrl.searchParams.get('token');
    this.#options = options;
    this.streamerSid = sid;
    // When whoever connected has had time to listen.
    setTimeout(() => this.#state === State.Idle && this.#attempt === 0 && this.#become(State.Ready));
  }

  get state() {
    return this.#state;
  }

  get volume() {
    return this.#volume;
  }

  get isMuted() {
    return this.#muted;
  }

  set isMuted(isMuted) {
    this.#muted = Boolean(isMuted);
    this.#element.muted = this.#muted;
    this.#emit(EventName.VolumeChanged, this.#volume);
  }

  /** The element that it plays through. */
  get videoElement() {
    return this.#element;
  }

  /** A live stream has none. */
  get duration() {
    return Infinity;
  }

  /** Seconds played. */
  get position() {
    return this.#played + (this.#transport?.position ?? 0);
  }

  /** Seconds from the mix to the ear, as far as the browser tells. */
  get liveLatency() {
    return this.#transport?.latency ?? 0;
  }

  /** What is known of the connection: `transport`, and the browser's or hls.js's own figures. */
  get stats() {
    return { transport: this.#transport?.name ?? null, ...this.#transport?.stats };
  }

  on(event, handler) {
    if (!Object.values(EventName).includes(event)) throw new PlayerError(Code.INVALID_PARAMETER, `event: there is no ${event}`);
    if (!this.#handlers.has(event)) this.#handlers.set(event, new Set());
    this.#handlers.get(event).add(handler);
    return this;
  }

  off(event, handler) {
    this.#handlers.get(event)?.delete(handler);
    return this;
  }

  /** Plays through an element of the page instead of one of its own. */
  attach(element) {
    if (!(element instanceof HTMLMediaElement)) {
      throw new PlayerError(Code.INVALID_PARAMETER, 'element: expected an audio or video element');
    }
    const previous = this.#element;
    element.volume = this.#volume;
    element.muted = this.#muted;
    this.#element = element;
    if (this.#transport) {
      previous.pause();
      this.#restart();
    }
    return this;
  }

  setVolume(volume) {
    if (!(volume >= 0 && volume <= 1)) throw new PlayerError(Code.INVALID_PARAMETER, 'volume: expected 0 to 1');
    this.#volume = volume;
    this.#element.volume = volume;
    this.#emit(EventName.VolumeChanged, volume);
    return this;
  }

  /** Begins to play, at the live edge. */
  play() {
    if (this.#state === State.Ended) throw new PlayerError(Code.INVALID_STATE, 'The stream has ended.');
    if (this.#state !== State.Buffering && this.#state !== State.Playing) {
      this.#emit(EventName.DurationChanged, Infinity);
      this.#restart();
    }
    return this;
  }

  /** Ceases to play; `play` goes on at the live edge. */
  pause() {
    if (this.#state !== State.Ended) {
      this.#stop();
      this.#become(State.Idle);
    }
    return this;
  }

  /** Ends it. */
  disconnect() {
    this.#stop();
    this.#become(State.Ended);
    return this;
  }

  #emit(event, payload) {
    for (const handler of [...(this.#handlers.get(event) ?? [])]) {
      try {
        handler(payload);
      } catch (error) {
        reportError(error);
      }
    }
  }

  #become(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#emit(EventName.StateChanged, state);
  }

  #stop() {
    this.#attempt += 1;
    this.#drop();
  }

  #drop() {
    this.#played = this.position;
    this.#transport?.stop();
    this.#transport = undefined;
  }

  #restart() {
    this.#stop();
    this.#run(this.#attempt);
  }

  /** Plays, and comes back when the connection is lost, until it is told otherwise or the stream ends. */
  async #run(attempt) {
    const isStale = () => attempt !== this.#attempt;
    let pause = FIRST_PAUSE;
    let lostAt = performance.now();
    this.#become(State.Buffering);
    while (!isStale()) {
      try {
        const transport = await this.#open();
        if (isStale()) return transport.stop();
        this.#transport = transport;
        this.#become(State.Playing);
        await transport.lost;
        if (isStale()) return;
        this.#drop();
        [pause, lostAt] = [FIRST_PAUSE, performance.now()];
        this.#become(State.Buffering);
        this.#emit(EventName.Rebuffering);
      } catch (error) {
        if (isStale()) return;
        if (error.code === Code.NOT_AVAILABLE) return this.#finish();
        if (error.code === Code.INVALID_STATE) {
          this.#emit(EventName.Error, error);
          return this.pause();
        }
        if (!mayPass(error)) return this.#finish(error);
        if (performance.now() - lostAt > PATIENCE) return this.#finish(new PlayerError(Code.TIMEOUT, error.message));
      }
      await sleep(pause);
      pause = Math.min(2 * pause, LONGEST_PAUSE);
    }
  }

  #finish(error) {
    if (error) this.#emit(EventName.Error, error);
    this.disconnect();
  }

  async #open() {
    const wanted = this.#options.transport ?? 'auto';
    if (wanted !== 'hls' && 'RTCPeerConnection' in globalThis) {
      try {
        return await this.#openWhep();
      } catch (error) {
        // That the media does not get through is what HLS is for, or that there is no room for one more listener.
        const isFinal = [Code.AUTHORIZATION, Code.NOT_AVAILABLE, Code.INVALID_STATE, Code.NETWORK_IO].includes(error.code);
        if (wanted === 'whep' || isFinal) throw error;
      }
    }
    return this.#openHls();
  }

  async #openWhep() {
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
      setTimeout(() => transport.isStopped || this.#receive(data, (performance.now() - began) / 1000), 1000 * latency);
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
      element = this.#element;
      element.srcObject = new MediaStream([track]);
    };
    const watching = setInterval(async () => {
      if (performance.now() - heardAt > SILENT) lost.give();
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
    try {
      disconnect = await whep(pc, `${this.#base}/whep/${this.streamerSid}`, this.#session);
      await connected;
      heardAt = performance.now();
      await this.#start(this.#element);
      return transport;
    } catch (error) {
      transport.stop();
      throw toPlayerError(error);
    }
  }

  async #openHls() {
    const Hls = this.#options.hls;
    if (Hls?.isSupported()) return this.#openHlsJs(Hls);
    if (!canPlayHls()) throw new PlayerError(Code.NOT_SUPPORTED, 'WebRTC does not get through, and this browser does not play HLS.');
    await this.#untilPlayable();
    const element = this.#element;
    const lost = signal();
    element.srcObject = null;
    element.src = this.#hlsUrl.href;
    const events = new EventSource(this.#eventsUrl());
    const pending = new Set();
    const latency = () => {
      const { seekable, currentTime } = element;
      return seekable.length && Number.isFinite(seekable.end(0)) ? Math.max(0, seekable.end(0) - currentTime) + 1 : UNKNOWN_LATENCY;
    };
    events.onmessage = ({ data }) => {
      const timer = setTimeout(() => {
        pending.delete(timer);
        this.#receive(data, element.currentTime);
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
    try {
      await this.#start(element);
      return transport;
    } catch (error) {
      transport.stop();
      throw toPlayerError(error);
    }
  }

  async #openHlsJs(Hls) {
    await this.#untilPlayable();
    const element = this.#element;
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
        this.#receive(text, pts);
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
    try {
      element.srcObject = null;
      hls.loadSource(this.#hlsUrl.href);
      hls.attachMedia(element);
      await this.#start(element);
      return transport;
    } catch (error) {
      transport.stop();
      throw toPlayerError(error);
    }
  }

  /** Sees that the playlist is there, and not that of a stream that has ended, which is there for a while. */
  async #untilPlayable() {
    const playlist = await get(this.#hlsUrl);
    if (playlist.includes('#EXT-X-ENDLIST')) throw new PlayerError(Code.NOT_AVAILABLE, 'The stream has ended.');
  }

  async #start(element) {
    element.volume = this.#volume;
    element.muted = this.#muted;
    await element.play();
  }

  #eventsUrl() {
    const url = new URL(`${this.#base}/v1/PlayerStreamers/${this.streamerSid}/TimedMetadata`);
    if (this.#session) url.searchParams.set('token', this.#session);
    return url;
  }

  /** A payload whose audio is heard now; one that is not newer than the last is stale. */
  #receive(metadata, time) {
    const s = sequenceNumber(metadata);
    if (s !== null) {
      if (s <= this.#newest) return;
      this.#newest = s;
    }
    this.#emit(EventName.TimedMetadataReceived, { metadata, time: this.#played + time });
  }
}

function granted(accessToken) {
  try {
    const [, payload] = accessToken.split('.');
    const bytes = Uint8Array.from(atob(payload.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
    const { grants } = JSON.parse(new TextDecoder().decode(bytes));
    if (typeof grants.player.playbackUrl === 'string') return grants.player;
  } catch {
    // It is none.
  }
  throw new PlayerError(Code.INVALID_TOKEN, 'accessToken: expected a token with a playback grant');
}

async function get(url) {
  let response;
  try {
    response = await fetch(url, { signal: AbortSignal.timeout(ANSWERING) });
  } catch (error) {
    throw new PlayerError(Code.NETWORK_IO, error.message);
  }
  // A stream that has just begun has nothing to play yet, but says when.
  if (!response.ok && !response.headers.get('Retry-After')) throw await refused(response);
  if (!response.ok) throw new PlayerError(Code.NETWORK_IO, 'Nothing to play yet.');
  return response.text();
}

async function refused(response) {
  const { message } = await response.json().catch(() => ({}));
  return toPlayerError({ status: response.status, message: message ?? `The server answered ${response.status}` });
}

function toPlayerError(error) {
  if (error instanceof PlayerError) return error;
  const byStatus = { 401: Code.AUTHORIZATION, 403: Code.AUTHORIZATION, 404: Code.NOT_AVAILABLE, 429: Code.TOO_MANY_REQUESTS };
  if (error.isEarly) return new PlayerError(Code.NETWORK_IO, error.message);
  if (error.status) return new PlayerError(byStatus[error.status] ?? Code.NETWORK_IO, error.message);
  if (error.name === 'NotAllowedError') return new PlayerError(Code.INVALID_STATE, 'The browser wants a click first.');
  const isNetwork = error instanceof TypeError || error.name === 'TimeoutError';
  return new PlayerError(isNetwork ? Code.NETWORK_IO : Code.MEDIA, error.message);
}

/** Whether trying again may help. */
function mayPass(error) {
  return [Code.NETWORK, Code.NETWORK_IO, Code.TOO_MANY_REQUESTS, Code.MEDIA].includes(error.code);
}

function sequenceNumber(text) {
  try {
    const { s, p } = JSON.parse(text);
    return Number.isInteger(s) && p instanceof Object ? s : null;
  } catch {
    return null;
  }
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

  constructor(pc) {
    this.#pc = pc;
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

function canPlayHls() {
  return typeof Audio !== 'undefined' && new Audio().canPlayType('application/vnd.apple.mpegurl') !== '';
}

function signal() {
  let give;
  const given = new Promise((resolve) => (give = resolve));
  return { given, give };
}

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
