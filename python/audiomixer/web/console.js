// A host's console: a strip for each participant of a room, and what is played into it.

const EVERY = 500; // ms between two looks
const KEPT_OUT = 4; // looks after which to look again who is kept out
const RECORDINGS = 2; // looks after which to look again what is recorded
const RECORDED = 'Recordings?Status=recording';
const FLOOR = -60; // dBFS at the low end of meters
const HOLD = 2000; // ms for which a peak is held
const OWN = 1500; // ms for which a strip shows what was set here, and not what the server said meanwhile
const SEND = 80; // ms between two settings of a fader that is being moved
const POOR = 2; // per cent of lost audio that is worth a warning

const find = (selector, within = document) => within.querySelector(selector);
const room = decodeURIComponent(location.pathname.split('/').pop());
const api = new URL(`../v1/Rooms/${encodeURIComponent(room)}/`, import.meta.url);
const token = new URLSearchParams(location.hash.slice(1)).get('token');
const narrow = matchMedia('(max-width: 40rem)');
const strips = new Map();

find('#title').textContent = room;
document.title = `${room} · console`;

function say(text, isProblem = false) {
  find('#state').textContent = text;
  find('#state').classList.toggle('problem', isProblem);
}

/** Asks the API. */
async function ask(path, form) {
  const response = await fetch(new URL(path, api), {
    method: form ? 'POST' : 'GET',
    headers: { Authorization: `Bearer ${token}` },
    body: form && new URLSearchParams(form),
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw Object.assign(new Error(answer.message ?? `The server answered ${response.status}`), { status: response.status });
  return answer;
}

/** Does what somebody wants, and says if it cannot be done. */
async function act(work, tell = say) {
  try {
    await work();
    tell('');
  } catch (error) {
    tell(error.message, true);
  }
}

/** One participant's strip. */
class Strip {
  #node = find('#strip').content.firstElementChild.cloneNode(true);
  #path;
  #set = { at: -Infinity };
  #peak = { level: FLOOR, at: 0 };
  #lost = [];
  #sending = 0;
  #isPlayed;

  constructor(participant) {
    this.#isPlayed = isSource(participant);
    if (this.#isPlayed) find('.kick', this.#node).textContent = 'Stop';
    this.identity = participant.identity;
    this.#path = `Participants/${participant.sid}`;
    find('.name', this.#node).textContent = this.identity;
    find('.name', this.#node).title = this.identity;
    find('.meter', this.#node).setAttribute('aria-label', `Level of ${this.identity}`);
    find('.fader', this.#node).setAttribute('aria-label', `Gain of ${this.identity}`);
    find('.fader', this.#node).addEventListener('input', (event) => this.turn(Number(event.target.value)));
    find('.fader', this.#node).addEventListener('dblclick', () => this.turn(0));
    find('.mute', this.#node).addEventListener('click', () => this.mute());
    find('.on-air', this.#node).addEventListener('click', () => this.air());
    find('.kick', this.#node).addEventListener('click', () => this.remove());
    this.#node.addEventListener('focusin', () => choose(this));
    find('#desk').append(this.#node);
  }

  get node() { return this.#node; }

  turn(gain) {
    this.#mine({ gain_db: Math.min(12, Math.max(FLOOR, gain)) });
    this.#sending ||= setTimeout(() => {
      this.#sending = 0;
      this.#send({ Gain: this.gain });
    }, SEND);
  }

  get gain() { return Number(find('.fader', this.#node).value); }

  mute() {
    const muted = find('.mute', this.#node).getAttribute('aria-pressed') !== 'true';
    this.#mine({ muted_by_host: muted });
    this.#send({ Muted: muted });
  }

  air() {
    const isOn = find('.on-air', this.#node).getAttribute('aria-pressed') !== 'true';
    this.#mine({ in_mix: isOn });
    this.#send({ InMix: isOn });
  }

  remove() {
    if (this.#isPlayed) this.#send({ Status: 'disconnected' });
    else if (confirm(`Remove ${this.identity} from the room, and keep them out?`)) this.#send({ KeptOut: true });
  }

  #mine(changes) {
    this.#set = { ...this.#set, ...changes, at: performance.now() };
    this.#showSettings(this.#set);
  }

  #send(form) {
    return act(() => ask(this.#path, form));
  }

  #showSettings({ gain_db: gain, muted_by_host: muted, in_mix: isOn }) {
    if (gain !== undefined) {
      const text = `${gain > 0 ? '+' : ''}${gain.toFixed(1).replace('-', '−')} dB`;
      find('.fader', this.#node).value = gain;
      find('.fader', this.#node).setAttribute('aria-valuetext', text);
      find('.gain', this.#node).textContent = text;
    }
    if (muted !== undefined) find('.mute', this.#node).setAttribute('aria-pressed', muted);
    if (isOn !== undefined) {
      find('.on-air', this.#node).setAttribute('aria-pressed', isOn);
      find('.on-air', this.#node).textContent = isOn ? 'On air' : 'Room only';
    }
  }

  show(participant) {
    const now = performance.now();
    if (now - this.#set.at > OWN) {
      this.#set = { at: -Infinity };
      this.#showSettings(participant);
    }
    this.#node.classList.toggle('off', participant.muted_by_host || !participant.in_mix);
    find('.client', this.#node).textContent = nameOf(participant);
    this.#meter(participant, now);
    this.#health(participant, now);
  }

  #meter({ volume, muted, muted_by_host: byHost }, now) {
    const level = Math.max(FLOOR, 20 * Math.log10(Math.max(volume ?? 0, 1) / 32767));
    if (level >= this.#peak.level || now - this.#peak.at > HOLD) this.#peak = { level, at: now };
    const text = byHost ? 'muted by you' : muted ? 'muted' : level <= FLOOR ? 'silent' : `${Math.round(level)} dBFS`.replace('-', '−');
    const [off, peak] = [(100 * level) / FLOOR, 100 - (100 * this.#peak.level) / FLOOR];
    find('.bar-of', this.#node).style.clipPath = narrow.matches ? `inset(0 ${off}% 0 0)` : `inset(${off}% 0 0 0)`;
    const mark = find('.peak', this.#node).style;
    [mark.bottom, mark.left] = narrow.matches ? ['', `${peak}%`] : [`${peak}%`, ''];
    const meter = find('.meter', this.#node);
    meter.setAttribute('aria-valuenow', Math.round(level));
    meter.setAttribute('aria-valuetext', text);
    find('.level', this.#node).textContent = text;
    this.#node.dataset.volume = volume ?? -1;
  }

  /** How much of the last ten seconds was made up, and how late it is heard. */
  #health({ concealed_ms: concealed, delay_ms: delay }, now) {
    if (concealed === null || delay === null) return;
    this.#lost.push({ at: now, concealed });
    while (now - this.#lost[0].at > 10_000) this.#lost.shift();
    const [first] = this.#lost;
    const poor = now > first.at ? Math.max(0, 100 * (concealed - first.concealed)) / (now - first.at) : 0;
    const health = find('.health', this.#node);
    health.textContent = !this.#isPlayed ? `${poor.toFixed(poor < 10 ? 1 : 0)} % lost · ${delay} ms` : 'played here';
    health.classList.toggle('poor', poor > POOR);
  }

  close() {
    this.#node.remove();
  }
}

/** Whether it is played here, and joined by nothing. */
function isSource({ client, codec }) {
  return codec === 'pcm' && !client;
}

/** What a participant joined by, in short. */
function nameOf(participant) {
  if (isSource(participant)) return 'source';
  const { client } = participant;
  const known = /(Firefox|Edg|Chrome|Version|OBS|GStreamer|libdatachannel|pion)[/ -]?([\d]+)?/i.exec(client ?? '');
  if (!known) return (client ?? '').split('/')[0];
  const name = { edg: 'Edge', version: 'Safari' }[known[1].toLowerCase()] ?? known[1];
  return known[2] ? `${name} ${known[2]}` : name;
}

let chosen = null;

function choose(strip) {
  chosen?.node.classList.remove('chosen');
  chosen = strip;
  chosen?.node.classList.add('chosen');
}

function byArrival(a, b) {
  return a.start_time.localeCompare(b.start_time) || a.identity.localeCompare(b.identity);
}

/** Those who have been removed, and may not come back before they are let in. */
async function showKeptOut() {
  const { participants: kept } = await ask('Participants?KeptOut=true');
  find('#kept').hidden = !kept.length;
  find('#kept ul').replaceChildren(...kept.map(({ sid, identity }) => {
    const item = document.createElement('li');
    item.className = 'row';
    item.innerHTML = '<span class="title"></span><button class="plain">Let in</button>';
    item.firstElementChild.textContent = identity;
    item.lastElementChild.addEventListener('click', () => act(async () => {
      await ask(`Participants/${sid ?? encodeURIComponent(identity)}`, { KeptOut: false });
      await showKeptOut();
    }));
    return item;
  }));
}

function showParticipants(participants) {
  // Of whom a worker has said nothing this time is still there; mixers have no strip.
  const here = participants.filter(({ sid, codec }) => codec !== null || strips.has(sid)).sort(byArrival);
  const ids = new Set(here.map(({ sid }) => sid));
  for (const [sid, strip] of strips) {
    if (ids.has(sid)) continue;
    if (chosen === strip) choose(null);
    strip.close();
    strips.delete(sid);
  }
  for (const participant of here) {
    if (!strips.has(participant.sid)) strips.set(participant.sid, new Strip(participant));
    strips.get(participant.sid).show(participant);
  }
  find('#empty').hidden = here.length > 0;
  const isOnAir = participants.some(({ sid, codec, start_time: since }) => codec === null && !strips.has(sid) && Date.now() - Date.parse(since) > 1000);
  find('#air').hidden = false;
  find('#air').textContent = isOnAir ? 'On air' : 'Off air';
  find('#air').classList.toggle('lit', isOnAir);
}

function showSources(sources) {
  find('#sources').replaceChildren(...sources.map((source) => {
    const item = document.createElement('li');
    item.className = 'row';
    item.innerHTML = '<span class="title"></span><span class="faint"></span><button class="plain"></button><button class="plain">Stop</button>';
    const [title, time, pause, stop] = item.children;
    const isPaused = source.status === 'paused';
    title.textContent = source.participant_identity;
    time.textContent = `${clock(source.position)}${source.duration ? ` / ${clock(source.duration)}` : ''}`;
    pause.textContent = isPaused ? 'Resume' : 'Pause';
    pause.addEventListener('click', () => act(() => ask(`Sources/${source.sid}`, { Status: isPaused ? 'playing' : 'paused' })));
    stop.addEventListener('click', () => act(() => ask(`Sources/${source.sid}`, { Status: 'ended' })));
    return item;
  }));
}

/** How loud the mix is. */
function showLevels(levels) {
  find('#levels').hidden = false;
  for (const node of document.querySelectorAll('#levels dd')) {
    const value = levels[node.dataset.of];
    node.textContent = value === null ? '—' : `${value.toFixed(1).replace('-', '−')} ${node.dataset.unit}`;
  }
  find('[data-of=reduction_db]').classList.toggle('poor', levels.reduction_db < -6);
}

let recording = null;

function showRecordings(recordings) {
  recording = recordings.find(({ status }) => status === 'recording') ?? null;
  const button = find('#record');
  button.hidden = false;
  button.setAttribute('aria-pressed', recording !== null);
  button.textContent = recording ? `Recording ${clock(recording.duration)}` : 'Record';
  button.title = recording?.error ?? '';
}

/** Begins to record, or ceases to. */
function record() {
  const button = find('#record');
  if (button.disabled) return;
  button.disabled = true;
  act(async () => {
    if (recording) await ask(`Recordings/${recording.sid}`, { Status: 'stopped' });
    else await ask('Recordings', { Format: 'm4a' });
    showRecordings((await ask(RECORDED)).recordings);
  }).finally(() => { button.disabled = false; });
}

function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, '0')}`;
}

let shownSources = '';
let wasAway = true;
let looks = 0;

async function look() {
  const [{ participants }, { sources }, levels, recordings] = await Promise.all([
    ask('Participants?Status=connected&PageSize=200'), ask('Sources'), ask('Levels'), looks % RECORDINGS === 0 && ask(RECORDED).catch(() => null),
  ]);
  showParticipants(participants);
  showLevels(levels);
  if (recordings) showRecordings(recordings.recordings);
  // Buttons under somebody's finger stay the same ones.
  const shown = JSON.stringify(sources.map(({ sid, status, position }) => [sid, status, Math.floor(position)]));
  if (shown !== shownSources) showSources(sources);
  shownSources = shown;
  if (looks++ % KEPT_OUT === 0) await showKeptOut();
  if (wasAway) say('');
  wasAway = false;
}

async function lookForEver() {
  for (;;) {
    const began = performance.now();
    try {
      await look();
    } catch (error) {
      if (error.status === 401) return refuse(error.message);
      wasAway = true;
      if (error.status === 404) {
        showParticipants([]);
        showSources([]);
        shownSources = '';
        find('#kept').hidden = find('#levels').hidden = find('#record').hidden = true;
        say('There is no such room just now.');
      } else {
        say(error.status ? error.message : 'The server does not answer. Trying again…', true);
      }
    }
    await new Promise((resolve) => setTimeout(resolve, Math.max(100, EVERY - (performance.now() - began))));
  }
}

find('#record').addEventListener('click', record);

find('#play').addEventListener('submit', (event) => {
  event.preventDefault();
  const { url, duck, loop } = event.target.elements;
  const button = find('#play button');
  button.disabled = true;
  act(async () => {
    await ask('Sources', { Url: url.value, Duck: duck.checked ? -12 : 0, Loop: loop.checked });
    await look();
  }, (text) => { find('#play-problem').textContent = text; }).finally(() => { button.disabled = false; });
});

addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches('input:not(.fader)')) return;
  const all = [...strips.values()];
  if (/^[1-9]$/.test(event.key) && all[event.key - 1]) {
    choose(all[event.key - 1]);
    find('.fader', chosen.node).focus();
  } else if (event.key.toLowerCase() === 'r' && !event.repeat && !find('#record').hidden) {
    record();
  } else if (chosen && event.key.toLowerCase() === 'm') {
    chosen.mute();
  } else if (chosen && event.key.toLowerCase() === 'a') {
    chosen.air();
  } else if (chosen && event.key === '0') {
    chosen.turn(0);
  } else if (chosen && ['ArrowUp', 'ArrowDown'].includes(event.key) && !event.target.matches('.fader')) {
    chosen.turn(chosen.gain + (event.key === 'ArrowUp' ? 0.5 : -0.5));
  } else {
    return;
  }
  event.preventDefault();
});

/** There is nothing to be done here. */
function refuse(reason) {
  say(`This console is for the hosts of this room, by a link that ends in their #token=…${reason ? ` (${reason})` : ''}`, true);
  find('#play').closest('section').hidden = true;
}

if (token) lookForEver();
else refuse('');
