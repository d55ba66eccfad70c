// A room: join with the microphone by WHIP, hear everybody else, see who is how loud.

import { readEvents } from './events.js';
import { Meters } from './meters.js';
import { connect } from './webrtc.js';

const ABSENCES = 6; // of two a second
const AGAIN = 1000; // ms until the next try when the server does not answer
const TRIES = 5; // to come back after the connection was lost, though the server is there: the network has changed

const find = (selector) => document.querySelector(selector);
const room = decodeURIComponent(location.pathname.split('/').pop());
const root = new URL('..', import.meta.url);
const token = new URLSearchParams(location.hash.slice(1)).get('token');
const invited = granted(token);
const meters = new Meters(find('#meters'));
let identity;
let microphone;
let disconnect;
let isConnected = false;
let absences = 0; // payloads since one was missing among those who are here
let isComingBack = false;
let isServerBack = false; // and has not said yet who is here
let here = {}; // who was here half a second ago, with their volumes
const NEEDS_INVITATION = 'This room needs an invitation: a link that ends in #token=…';
const MICROPHONE = {
  NotAllowedError: 'You have not allowed the microphone: allow it in the browser’s settings of this page, and join again.',
  NotFoundError: 'There is no microphone.',
  NotReadableError: 'The microphone is used by another application.',
};

find('#title').textContent = room;
document.title = `${room} · audiomixer`;
if (token) find('#join label').hidden = !(find('#join input').required = false);
/** There is no point in joining. */
function refuse(text) {
  say(text, true);
  find('#join button').disabled = true;
}

function say(text, isProblem = false) {
  find('#state').textContent = text;
  find('#state').classList.toggle('problem', isProblem);
}

async function join(name) {
  say('Joining…');
  find('#join button').disabled = true;
  identity = invited?.identity ?? name.trim();
  if (!identity) throw new Error('Please enter your name.');
  microphone = await navigator.mediaDevices.getUserMedia({ audio: true }).catch((error) => {
    throw new Error(MICROPHONE[error.name] ?? `The microphone cannot be used: ${error.message}`);
  });
  await enter();
  present(true);
}

/** Whom a token is for, who then need not say so, and which room; nothing, if it is none. */
function granted(token) {
  try {
    const payload = token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/');
    const { grants } = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(payload), (c) => c.charCodeAt(0))));
    return { identity: grants.identity, room: grants.video?.room };
  } catch {
    return undefined;
  }
}

async function enter() {
  const pc = new RTCPeerConnection();
  pc.addTrack(microphone.getAudioTracks()[0], microphone);
  pc.ontrack = ({ streams, track }) => (find('#audio').srcObject = streams[0] ?? new MediaStream([track]));
  // Its end is noticed at once; that of media, after many seconds.
  pc.createDataChannel('presence').onclose = () => pc.onconnectionstatechange && lose(true);
  pc.onconnectionstatechange = () => {
    isConnected = pc.connectionState === 'connected';
    if (isConnected) say('You are in the room.');
    if (['failed', 'closed'].includes(pc.connectionState)) lose(pc.connectionState === 'closed');
  };
  disconnect = async () => {
    pc.onconnectionstatechange = null;
    pc.close();
  };
  disconnect = await connect(pc, new URL(`whip/${encodeURIComponent(room)}?${new URLSearchParams({ identity })}`, root), token);
}

/** The connection is lost: somebody else has this name now, or the network has changed, or the server is gone. */
async function lose(isPutOut) {
  if (isComingBack || !microphone) return;
  const isThere = await fetch(new URL('healthz', root)).then(({ ok }) => ok, () => false);
  // Who was put out is not here in the next volumes, unless the name is another's now.
  if (isPutOut && isThere) await new Promise((resolve) => setTimeout(resolve, AGAIN));
  if (isComingBack || !microphone) return;
  if (!isThere) say('The server is gone; waiting for it…', true);
  else if (!isPutOut) comeBack();
  else if (Object.hasOwn(here, identity)) leave('Somebody has joined by your name, and taken your place.', true);
  else leave('The room has ended, or you have been put out of it.', true);
}

/** Joins again: the server was gone and is back, or is reached another way now. */
async function comeBack() {
  if (isComingBack) return;
  isComingBack = true;
  try {
    for (let tries = 1; microphone; tries += 1) {
      disconnect?.();
      disconnect = undefined;
      say('Coming back…');
      try {
        return await enter();
      } catch (error) {
        if (error.status && error.status < 500) return leave(error.message, true);
        if (tries === TRIES) return leave('The room has ended, or the connection was lost.', true);
        say(error.message, true);
      }
      await new Promise((resolve) => setTimeout(resolve, AGAIN * 2 ** tries * (0.5 + Math.random() / 2)));
    }
  } finally {
    isComingBack = false;
  }
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
  here = volumes;
  // It may have been away while the room went on.
  if (isServerBack && microphone && !Object.hasOwn(volumes, identity)) comeBack();
  isServerBack = false;
  meters.show(volumes, microphone && identity);
  absences = isConnected && !Object.hasOwn(volumes, identity) ? absences + 1 : 0;
  if (absences >= ABSENCES) lose(false);
}

/** Shows who is here; when the server was gone and is back, comes back. */
async function watch() {
  const url = new URL(`rooms/${encodeURIComponent(room)}/volumes`, root);
  for (let isBack = false; ; isBack = true) {
    try {
      await readEvents(url, token, () => (isServerBack = isBack), (data) => show(JSON.parse(data)));
    } catch (error) {
      if (error.status === 401) return refuse(token ? `This invitation is not good: ${error.message}.` : NEEDS_INVITATION);
    }
    meters.show({});
    await new Promise((resolve) => setTimeout(resolve, AGAIN * (0.5 + Math.random())));
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
if (token && !invited) refuse('This invitation is damaged: copy the whole link, to its end.');
else if (invited?.room && invited.room !== room && !/^RM[0-9a-f]{32}$/.test(invited.room)) {
  refuse(`This invitation is for the room “${invited.room}”.`);
} else if (!navigator.mediaDevices) {
  refuse('Browsers give the microphone to https pages only: ask for the https address of this room.');
}
watch();
