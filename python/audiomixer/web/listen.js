// Listening to a stream: the player, and the meters that its metadata moves.

import { Meters } from './meters.js';
import { Player, PlayerError } from './player.js';

const find = (selector) => document.querySelector(selector);
const root = new URL('..', import.meta.url);
const sid = location.pathname.split('/').pop();
const token = new URLSearchParams(location.hash.slice(1)).get('token');
const transport = new URLSearchParams(location.search).get('transport') ?? 'auto';
const openUrl = new URL(`hls/${sid}/index.m3u8`, root).href;
const meters = new Meters(find('#meters'));
let player;

// The page of a stream that there is not, or not yet, says so at once.
fetch(openUrl).then(({ status }) => {
  if (status !== 404 || player) return;
  say('There is no such stream, or not any more.', true);
  find('#play').disabled = true;
}, () => {});

if (token) find('#hls').closest('p').hidden = true;
else find('#hls').href = openUrl;

const STATES = {
  buffering: 'Connecting, or waiting for the stream to begin…',
  playing: () => (player.stats.transport === 'whep' ? 'Playing live.' : 'Playing, a few seconds behind.'),
  ended: 'The stream has ended.',
  idle: 'Stopped.',
};

function say(text, isProblem = false) {
  find('#state').textContent = text;
  find('#state').classList.toggle('problem', isProblem);
}

function onState(state) {
  const text = STATES[state];
  if (text) say(typeof text === 'function' ? text() : text);
  const isOn = state === 'buffering' || state === 'playing';
  if (state !== 'playing') {
    find('.empty').textContent = 'Shown while you listen.';
    meters.show({});
  }
  find('#play').textContent = isOn ? 'Stop' : 'Play';
  if (state === 'ended') player = undefined;
}

function onMetadata({ metadata }) {
  try {
    const { p } = JSON.parse(metadata);
    find('.empty').textContent = 'Nobody is in the room.';
    meters.show(Object.fromEntries(Object.entries(p).map(([identity, { v }]) => [identity, v])));
  } catch {
    // A payload of an application's own.
  }
}

function explain(error) {
  if (error.code === PlayerError.Code.AUTHORIZATION) return token ? `${error.message}.` : 'This stream needs an invitation: a link that ends in #token=…';
  if (error.code === PlayerError.Code.NOT_AVAILABLE) return 'There is no such stream.';
  return error.message;
}

async function play() {
  find('#play').disabled = true;
  try {
    if (!player) {
      const connected = await (token ? Player.connect(token, { transport }) : Player.connectTo(openUrl, { transport }));
      let problem;
      connected.on('error', (error) => (problem = error));
      connected.on('timedMetadataReceived', onMetadata);
      connected.on('stateChanged', (state) => {
        onState(state);
        if (state === 'ended' && problem) say(explain(problem), true);
      });
      connected.attach(find('#audio'));
      player = connected;
    }
    player.play();
  } catch (error) {
    say(explain(error), true);
  }
  find('#play').disabled = false;
}

find('#play').addEventListener('click', () => (['buffering', 'playing'].includes(player?.state) ? player.pause() : play()));
find('#volume').addEventListener('input', ({ target }) => (player ? player.setVolume(Number(target.value)) : (find('#audio').volume = target.value)));
addEventListener('pagehide', () => player?.disconnect());
