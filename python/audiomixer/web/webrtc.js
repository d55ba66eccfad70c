// WHIP and WHEP (RFC 9725 and its draft twin): one POST with an offer, one answer back; candidates that come later follow.

const ANSWERING = 8000; // ms for a server to answer
const COLLECTING = 50; // ms for candidates that go together

/** Connects `pc` to a WHIP or WHEP endpoint. @returns {Promise<() => Promise<void>>} what disconnects it again */
export async function connect(pc, endpoint, token) {
  const offer = await pc.createOffer();
  // A browser decodes stereo only if its own offer says so.
  offer.sdp = offer.sdp.replace(/(a=fmtp:\d+ [^\r\n]*useinbandfec=1)/g, '$1;stereo=1');
  const late = collect(pc);
  await pc.setLocalDescription(offer);
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
  trickle(pc, late, resource, response.headers.get('ETag'), headers.Authorization);
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

/** The candidates that `pc` finds from now on; `onCandidate` of the list is called with each that is added. */
function collect(pc) {
  const late = [];
  pc.addEventListener('icecandidate', ({ candidate }) => {
    if (!candidate?.candidate) return;
    late.push(candidate);
    late.onCandidate?.();
  });
  return late;
}

/** Sends candidates, those of a moment together (RFC 8840). That some do not arrive costs a way to be reached, no more. */
function trickle(pc, late, resource, session, authorization) {
  if (!session) return;
  const headers = { 'Content-Type': 'application/trickle-ice-sdpfrag', 'If-Match': session };
  if (authorization) headers.Authorization = authorization;
  let timer;
  const send = () => {
    timer = undefined;
    const candidates = late.splice(0);
    if (!candidates.length || pc.connectionState === 'closed') return;
    fetch(resource, { method: 'PATCH', headers, body: fragment(pc.localDescription.sdp, candidates) }).catch(() => {});
  };
  late.onCandidate = () => (timer ??= setTimeout(send, COLLECTING));
  late.onCandidate();
}

function fragment(sdp, candidates) {
  const credentials = ['ice-ufrag', 'ice-pwd'].map((name) => sdp.match(new RegExp(`^a=${name}:.*$`, 'm'))[0].trim());
  const sections = [...new Set(candidates.map(({ sdpMid }) => sdpMid))].flatMap((mid) => [
    'm=audio 9 UDP/TLS/RTP/SAVPF 0',
    `a=mid:${mid}`,
    ...candidates.filter(({ sdpMid }) => sdpMid === mid).map(({ candidate }) => `a=${candidate}`),
  ]);
  return [...credentials, ...sections, ''].join('\r\n');
}
