// WHIP and WHEP (RFC 9725 and its draft twin): one POST with an offer, one answer back.

const ANSWERING = 8000; // ms for a server to answer
const GATHERING = 1000; // ms to wait for candidates; a server finds the others by itself

/** Connects `pc` to a WHIP or WHEP endpoint. @returns {Promise<() => Promise<void>>} what disconnects it again */
export async function connect(pc, endpoint, token) {
  const offer = await pc.createOffer();
  // A browser decodes stereo only if its own offer says so.
  offer.sdp = offer.sdp.replace(/(a=fmtp:\d+ [^\r\n]*useinbandfec=1)/g, '$1;stereo=1');
  await pc.setLocalDescription(offer);
  await gathered(pc);
  const headers = { 'Content-Type': 'application/sdp' };
  if (token) headers.Authorization = `Bearer ${token}`;
  const signal = AbortSignal.timeout(ANSWERING);
  const response = await fetch(endpoint, { method: 'POST', headers, body: pc.localDescription.sdp, signal });
  if (!response.ok) {
    const isEarly = response.headers.has('Retry-After');
    throw Object.assign(new Error(await problem(response)), { status: response.status, isEarly });
  }
  await pc.setRemoteDescription({ type: 'answer', sdp: await response.text() });
  const resource = new URL(response.headers.get('Location'), response.url);
  return async () => {
    pc.onconnectionstatechange = null;
    const deleted = fetch(resource, { method: 'DELETE', keepalive: true }).catch(() => {});
    await Promise.race([deleted, new Promise((resolve) => setTimeout(resolve, 1000))]);
    pc.close();
  };
}

async function problem(response) {
  const body = await response.json().catch(() => ({}));
  return body.message ?? `The server answered ${response.status}`;
}

function gathered(pc) {
  return new Promise((resolve) => {
    if (pc.iceGatheringState === 'complete') return resolve();
    setTimeout(resolve, GATHERING);
    pc.addEventListener('icegatheringstatechange', () => pc.iceGatheringState === 'complete' && resolve());
  });
}
