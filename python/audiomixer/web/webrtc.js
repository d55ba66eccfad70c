// WHIP and WHEP (RFC 9725 and its draft twin): one POST with an offer, one answer back; candidates that come later follow.

const ANSWERING = 8000; // ms for a server to answer
const ASKING = 2000; // ms to be told of TURN servers; most connections need none
const COLLECTING = 50; // ms for candidates that go together

/** Connects `pc` to a WHIP or WHEP endpoint. @returns {Promise<() => Promise<void>>} what disconnects it again */
export async function connect(pc, endpoint, token) {
  const authorization = token ? { Authorization: `Bearer ${token}` } : {};
  const servers = await iceServers(endpoint, authorization);
  if (servers.length) pc.setConfiguration({ ...pc.getConfiguration(), iceServers: servers });
  const offer = stereo(await pc.createOffer());
  const late = collect(pc);
  await pc.setLocalDescription(offer);
  const headers = { 'Content-Type': 'application/sdp', ...authorization };
  const signal = AbortSignal.timeout(ANSWERING);
  const response = await fetch(endpoint, { method: 'POST', headers, body: pc.localDescription.sdp, signal });
  if (!response.ok) {
    const isEarly = response.headers.has('Retry-After');
    throw Object.assign(new Error(await problem(response)), { status: response.status, isEarly });
  }
  await pc.setRemoteDescription({ type: 'answer', sdp: await response.text() });
  const resource = new URL(response.headers.get('Location'), response.url);
  trickle(pc, late, resource, response.headers.get('ETag'), authorization);
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

/** The STUN and TURN servers that an endpoint has to offer (RFC 9725, section 4.6). */
async function iceServers(endpoint, headers) {
  const signal = AbortSignal.timeout(ASKING);
  const response = await fetch(endpoint, { method: 'OPTIONS', headers, signal }).catch(() => undefined);
  const links = response?.headers.get('Link') ?? '';
  return [...links.matchAll(/<([^>]+)>((?: *; *[\w-]+="[^"]*")*)/g)].flatMap(([, urls, text]) => {
    const { rel, username, credential } = Object.fromEntries([...text.matchAll(/([\w-]+)="([^"]*)"/g)].map(([, name, value]) => [name, value]));
    return rel === 'ice-server' ? [username ? { urls, username, credential } : { urls }] : [];
  });
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

/**
 * Sends candidates, those of a moment together (RFC 8840); that some do not arrive costs a way to be reached, no more. When
 * the connection is lost, it is looked for another way, with the same session (ICE restart).
 */
function trickle(pc, late, resource, session, authorization) {
  if (!session) return;
  const patch = (match, candidates) => {
    const headers = { 'Content-Type': 'application/trickle-ice-sdpfrag', 'If-Match': match, ...authorization };
    const signal = AbortSignal.timeout(ANSWERING);
    return fetch(resource, { method: 'PATCH', headers, body: fragment(pc.localDescription.sdp, candidates), signal });
  };
  let timer;
  let restarting = false;
  const send = () => {
    timer = undefined;
    if (restarting || !late.length || pc.connectionState === 'closed') return;
    patch(session, late.splice(0)).catch(() => {});
  };
  const restart = async () => {
    late.splice(0);
    await pc.setLocalDescription(stereo(await pc.createOffer({ iceRestart: true })));
    const response = await patch('*', late.splice(0));
    if (!response.ok) throw new Error(await problem(response));
    session = response.headers.get('ETag');
    await pc.setRemoteDescription({ type: 'answer', sdp: renewed(pc.currentRemoteDescription.sdp, await response.text()) });
  };
  late.onCandidate = () => (timer ??= setTimeout(send, COLLECTING));
  late.onCandidate();
  pc.addEventListener('iceconnectionstatechange', () => {
    if (restarting || pc.iceConnectionState !== 'disconnected') return;
    restarting = true;
    restart()
      .catch((error) => {
        console.info(`not connected another way: ${error.message}`);
        return pc.signalingState === 'have-local-offer' && pc.setLocalDescription({ type: 'rollback' });
      })
      .finally(() => {
        restarting = false;
        late.onCandidate();
      });
  });
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

/** The same answer, with the credentials and candidates of a fragment. */
function renewed(sdp, fragment) {
  const [ufrag, password] = ['ice-ufrag', 'ice-pwd'].map((name) => fragment.match(new RegExp(`^a=${name}:.*$`, 'm'))[0].trim());
  const candidates = [...fragment.matchAll(/^a=candidate:.*$/gm)].map(([line]) => line.trim());
  return sdp
    .replace(/^a=(candidate:.*|end-of-candidates)\r\n/gm, '')
    .replace(/^a=ice-ufrag:.*$/gm, ufrag)
    .replace(/^a=ice-pwd:.*$/gm, password)
    .replace(password, [password, ...candidates].join('\r\n'));
}

/** The same offer, of one who decodes stereo: a browser does so only if its own offer says so. */
function stereo(offer) {
  return { type: offer.type, sdp: offer.sdp.replace(/(a=fmtp:\d+ [^\r\n]*useinbandfec=1)/g, '$1;stereo=1') };
}
