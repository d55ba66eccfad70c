// What goes wrong in the player, and fetching with that in mind.

const ANSWERING = 8000; // ms for a server to answer

export const Code = Object.freeze({
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

/** The text at a URL. */
export async function get(url) {
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

/** Any error as one of ours. */
export function toPlayerError(error) {
  if (error instanceof PlayerError) return error;
  const byStatus = { 401: Code.AUTHORIZATION, 403: Code.AUTHORIZATION, 404: Code.NOT_AVAILABLE, 429: Code.TOO_MANY_REQUESTS };
  if (error.isEarly) return new PlayerError(Code.NETWORK_IO, error.message);
  if (error.status) return new PlayerError(byStatus[error.status] ?? Code.NETWORK_IO, error.message);
  if (error.name === 'NotAllowedError') return new PlayerError(Code.INVALID_STATE, 'The browser wants a click first.');
  const isNetwork = error instanceof TypeError || error.name === 'TimeoutError';
  return new PlayerError(isNetwork ? Code.NETWORK_IO : Code.MEDIA, error.message);
}

/** Whether trying again may help. */
export function mayPass(error) {
  return [Code.NETWORK, Code.NETWORK_IO, Code.TOO_MANY_REQUESTS, Code.MEDIA].includes(error.code);
}
