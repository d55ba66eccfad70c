export type State = 'idle' | 'ready' | 'buffering' | 'playing' | 'ended';

export interface TimedMetadata {
  /** The payload as it was sent, JSON or an application's own text. */
  metadata: string;
  /** Seconds of `position` at which its audio was heard. */
  time: number;
}

export interface Events {
  stateChanged: (state: State) => void;
  timedMetadataReceived: (metadata: TimedMetadata) => void;
  rebuffering: () => void;
  volumeChanged: (volume: number) => void;
  durationChanged: (duration: number) => void;
  error: (error: PlayerError) => void;
}

export interface Options {
  /** `auto` plays by WHEP, and by HLS where that does not get through. */
  transport?: 'auto' | 'whep' | 'hls';
  /** The `Hls` of hls.js, for browsers that do not play HLS themselves. */
  hls?: unknown;
  /** Accepted, as old applications give it. */
  playerWasmAssetsPath?: string;
}

export class PlayerError extends Error {
  static readonly Code: Readonly<{
    INVALID_TOKEN: 20101;
    MEDIA: 56000;
    AUTHORIZATION: 56001;
    INVALID_DATA: 56002;
    INVALID_PARAMETER: 56003;
    INVALID_STATE: 56004;
    NETWORK: 56005;
    NETWORK_IO: 56006;
    NOT_AVAILABLE: 56007;
    TOO_MANY_REQUESTS: 56008;
    NOT_SUPPORTED: 56009;
    NO_SOURCE: 56010;
    TIMEOUT: 56011;
  }>;
  readonly code: number;
}

export class Player {
  static readonly State: Readonly<{ Idle: 'idle'; Ready: 'ready'; Buffering: 'buffering'; Playing: 'playing'; Ended: 'ended' }>;
  static readonly Event: Readonly<{
    StateChanged: 'stateChanged';
    TimedMetadataReceived: 'timedMetadataReceived';
    Rebuffering: 'rebuffering';
    VolumeChanged: 'volumeChanged';
    DurationChanged: 'durationChanged';
    Error: 'error';
  }>;
  static readonly isSupported: boolean;
  static readonly Error: typeof PlayerError;
  static readonly version: string;
  static readonly LogLevel: Readonly<{ Debug: 'debug'; Info: 'info'; Warn: 'warn'; Error: 'error' }>;
  static readonly logLevel: string;
  /** Accepted; nothing is told. */
  static readonly telemetry: { subscribe(handler: unknown): void; unsubscribe(handler: unknown): void };
  static setLogLevel(level: string): void;
  /** @throws PlayerError */
  static connect(accessToken: string, options?: Options): Promise<Player>;
  /** @throws PlayerError */
  static connectTo(playbackUrl: string, options?: Options): Promise<Player>;

  readonly state: State;
  readonly volume: number;
  isMuted: boolean;
  readonly position: number;
  readonly liveLatency: number;
  readonly streamerSid: string;
  readonly stats: { transport: 'whep' | 'hls' | 'hls.js' | null; [name: string]: unknown };

  readonly videoElement: HTMLMediaElement;
  readonly duration: number;

  play(): this;
  pause(): this;
  disconnect(): this;
  attach(element: HTMLMediaElement): this;
  setVolume(volume: number): this;
  on<E extends keyof Events>(event: E, handler: Events[E]): this;
  off<E extends keyof Events>(event: E, handler: Events[E]): this;
}
