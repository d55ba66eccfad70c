// A room: join with the microphone by WHIP, hear everybody else, see who is how loud.

import { readEvents } from './events.js';
import { Meters } from './meters.js';
import { connect } from './webrtc.js';

const ABSENCES = 6; // of two a second
const AGAIN = 1000; // ms until the next try when the server does not answer

const find = (selector) => document.querySelector(selector);
const room = decodeURIComponent(location.pathname.split('/').pop());
const root = new URL('..', import.meta.url);
const token = new URLSearchParams(location.hash.slice(1)).get('token');
const meters = new Meters(find('#meters'));
let identity;
let microphone;
let disconnect;
let isConnected = false;
let absences = 0; // payloads since one was missing among those who are here

find('#title').textContent = room;
document.title = `${room} · audiomixer`;
if (token) find('#join label').hidden = !(find('#join input').required = false);

function say(text, isProblem = false) {
  find('#state').textContent = text;
  find('#state').classList.toggle('problem', isProblem);
}

async function join(name) {
  say('Joining…');
  find('#join button').disabled = true;
  identity = identityOf(token) ?? name;
  microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
  await enter();
  present(true);
}

/** Whom a token is for, who then need not say so. */
function identityOf(token) {
  if (!token) return undefined;
  const payload = token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/');
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(payload), (c) => c.charCodeAt(0)))).grants.identity;
}

async function enter() {
  const pc = new RTCPeerConnection();
  pc.addTrack(microphone.getAudioTracks()[0], microphone);
  pc.ontrack = ({ streams, track }) => (find('#audio').srcObject = streams[0] ?? new MediaStream([track]));
  // Its end is noticed at once; that of media, after many seconds.
  pc.createDataChannel('presence').onclose = () => pc.onconnectionstatechange && lose();
  pc.onconnectionstatechange = () => {
    isConnected = pc.connectionState === 'connected';
    if (isConnected) say('You are in the room.');
    if (['failed', 'closed'].includes(pc.connectionState)) lose();
  };
  disconnect = async () => {
    pc.onconnectionstatechange = null;
    pc.close();
  };
  disconnect = await connect(pc, new URL(`whip/${encodeURIComponent(room)}?${new URLSearchParams({ identity })}`, root), token);
}

/** The connection is lost: because the server is gone, which will be back, or for good. */
async function lose() {
  const isThere = await fetch(new URL('healthz', root)).then(({ ok }) => ok, () => false);
  if (!microphone) return;
  if (isThere) leave('The room has ended, the connection was lost, or somebody joined by your name.', true);
  else say('The server is gone; waiting for it…', true);
}

/** The server was gone, and is back. */
async function comeBack() {
  disconnect?.();
  disconnect = undefined;
  say('Coming back…');
  await enter().catch((error) => (error.status ? leave(error.message, true) : say(error.message, true)));
}

function present(isPresent) {
  find('#join').hidden = isPresent;
  find('#controls').hidden = !isPresent;
  find(isPresent ? '#mute' : '#join button').focus();
}

function leave(text = 'You have left the room.', isProblem = false) {
  isConnected = false;
  if (!microphone) return;
  for (const track of microphone.getTracks()) track.stop();
  microphone = undefined;
  disconnect?.();
  disconnect = undefined;
  find('#mute').setAttribute('aria-pressed', 'false');
  find('#mute').textContent = 'Mute';
  present(false);
  say(text, isProblem);
}

function toggleMute() {
  const track = microphone?.getAudioTracks()[0];
  if (!track) return;
  track.enabled = !track.enabled;
  find('#mute').setAttribute('aria-pressed', String(!track.enabled));
  find('#mute').textContent = track.enabled ? 'Mute' : 'Unmute';
  say(track.enabled ? 'You are in the room.' : 'You are in the room, muted.');
}

/** Shows who is here; one who is in the room, and is not among them, has been put out. */
function show(volumes) {
  meters.show(volumes);
  absences = isConnected && !(identity in volumes) ? absences + 1 : 0;
  if (absences >= ABSENCES) lose();
}

/** Shows who is here; when the server was gone and is back, comes back. */
async function watch() {
  const url = new URL(`rooms/${encodeURIComponent(room)}/volumes`, root);
  for (let isBack = false; ; isBack = true) {
    try {
      await readEvents(url, token, () => isBack && microphone && comeBack(), (data) => show(JSON.parse(data)));
    } catch (error) {
      if (error.status === 401) return say('This room needs an invitation: a link that ends in #token=…', true);
    }
    meters.show({});
    await new Promise((resolve) => setTimeout(resolve, AGAIN));
  }
}

find('#join').addEventListener('submit', async (event) => {
  event.preventDefault();
  try {
    await join(new FormData(event.target).get('identity'));
  } catch (error) {
    leave();
    say(error.message, true);
  }
  find('#join button').disabled = false;
});
find('#mute').addEventListener('click', toggleMute);
find('#leave').addEventListener('click', () => leave());
addEventListener('keydown', (event) => {
  if (event.key.toLowerCase() === 'm' && event.target.tagName !== 'INPUT' && !event.ctrlKey && !event.metaKey) toggleMute();
});
addEventListener('pagehide', () => disconnect?.());
watch();
