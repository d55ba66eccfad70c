// The player: `Player.connect(accessToken)`, with the interface of the retired service's web player.
//
// It plays by WHEP, with the metadata on a data channel, and by HLS where that does not get through: by hls.js if the
// page gives it, or by the browser itself. When the connection is lost it comes back by itself.

import { Code, PlayerError, get, mayPass } from './player_error.js';
import { canPlayHls, openHls, openWhep } from './transports.js';

export { PlayerError };

const FIRST_PAUSE = 250; // ms until the next try, twice as long each time
const LONGEST_PAUSE = 2000;
const PATIENCE = 600_000; // ms until no more tries are made

const State = Object.freeze({ Idle: 'idle', Ready: 'ready', Buffering: 'buffering', Playing: 'playing', Ended: 'ended' });
const EventName = Object.freeze({
  StateChanged: 'stateChanged',
  TimedMetadataReceived: 'timedMetadataReceived',
  Rebuffering: 'rebuffering',
  VolumeChanged: 'volumeChanged',
  DurationChanged: 'durationChanged',
  Error: 'error',
});

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

  #source; // what plays it from where: see transports.js
  #host;
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
    this.#source = { base, sid, session: hlsUrl.searchParams.get('token'), hlsUrl };
    const player = this;
    this.#host = {
      get element() {
        return player.#element;
      },
      start: (element) => this.#start(element),
      receive: (text, time) => this.#receive(text, time),
    };
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
      // All who listen have lost it at the same time: they come back one after the other.
      await sleep(pause * (0.5 + Math.random()));
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
        return await openWhep(this.#source, this.#host);
      } catch (error) {
        // That the media does not get through is what HLS is for, or that there is no room for one more listener.
        const isFinal = [Code.AUTHORIZATION, Code.NOT_AVAILABLE, Code.INVALID_STATE, Code.NETWORK_IO].includes(error.code);
        if (wanted === 'whep' || isFinal) throw error;
      }
    }
    return openHls(this.#source, this.#host, this.#options.hls);
  }

  async #start(element) {
    element.volume = this.#volume;
    element.muted = this.#muted;
    await element.play();
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

function sequenceNumber(text) {
  try {
    const { s, p } = JSON.parse(text);
    return Number.isInteger(s) && p instanceof Object ? s : null;
  } catch {
    return null;
  }
}

function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
