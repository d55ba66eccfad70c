// Listening: WHEP with the metadata on a data channel, or else HLS with the metadata as server-sent events.

import { Meters } from './meters.js';
import { connect } from './webrtc.js';

const CONNECTING = 6000; // ms until HLS is tried instead

const find = (selector) => document.querySelector(selector);
const sid = location.pathname.split('/').pop();
const hls = `/hls/${sid}/index.m3u8`;
const audio = find('#audio');
const meters = new Meters(find('#meters'));
let stop;
let newest = -1;

find('#hls').href = hls;

function say(text, isProblem = false) {
  find('#state').textContent = text;
  find('#state').classList.toggle('problem', isProblem);
}

function onMetadata(text) {
  const { s, p } = JSON.parse(text);
  if (s <= newest) return;
  newest = s;
  meters.show(Object.fromEntries(Object.entries(p).map(([identity, { v }]) => [identity, v])));
}

async function playWhep() {
  const pc = new RTCPeerConnection();
  pc.addTransceiver('audio', { direction: 'recvonly' });
  const channel = pc.createDataChannel('timed-metadata');
  channel.onmessage = ({ data }) => onMetadata(data);
  channel.onclose = () => stop && end('The stream has ended.');
  const connected = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error('no connection')), CONNECTING);
    pc.onconnectionstatechange = () => {
      if (pc.connectionState === 'connected') resolve();
      if (['failed', 'closed'].includes(pc.connectionState)) {
        reject(new Error('no connection'));
        if (stop) end('The stream has ended.');
      }
    };
  });
  pc.ontrack = ({ track }) => (audio.srcObject = new MediaStream([track]));
  try {
    const disconnect = await connect(pc, `/whep/${sid}`);
    await connected;
    await audio.play();
    say('Playing live.');
    return disconnect;
  } catch (error) {
    pc.close();
    throw error;
  }
}

async function playHls() {
  if (!audio.canPlayType('application/vnd.apple.mpegurl')) {
    throw new Error('WebRTC does not get through, and this browser does not play HLS.');
  }
  audio.srcObject = null;
  audio.src = hls;
  const events = new EventSource(`/v1/PlayerStreamers/${sid}/TimedMetadata`);
  events.onmessage = ({ data }) => onMetadata(data);
  events.onerror = () => end('The stream has ended.');
  const disconnect = () => {
    events.close();
    audio.removeAttribute('src');
    audio.load();
  };
  try {
    await audio.play();
  } catch (error) {
    disconnect();
    throw error;
  }
  say('Playing, a few seconds behind.');
  return disconnect;
}

async function play() {
  say('Connecting…');
  find('#play').disabled = true;
  try {
    const want = new URLSearchParams(location.search).get('transport');
    stop = want === 'hls' ? await playHls() : await playWhep().catch(playHls);
    find('#play').textContent = 'Stop';
  } catch (error) {
    say(error.message, true);
  }
  find('#play').disabled = false;
}

function end(text) {
  stop?.();
  stop = undefined;
  newest = -1;
  meters.show({});
  find('#play').textContent = 'Play';
  say(text);
}

find('#play').addEventListener('click', () => (stop ? end('Stopped.') : play()));
find('#volume').addEventListener('input', ({ target }) => (audio.volume = target.value));
addEventListener('pagehide', () => stop?.());
