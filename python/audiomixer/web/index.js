// The front page: what there is, every two seconds.

const REFRESH = 2000;

function line(title, detail, label, href) {
  const item = document.createElement('li');
  item.className = 'row';
  item.innerHTML = '<div class="grow"><p></p><p class="faint"></p></div><a class="button plain"></a>';
  const [first, second] = item.querySelectorAll('p');
  const link = item.querySelector('a');
  first.textContent = title;
  second.textContent = detail;
  link.textContent = label;
  link.href = href;
  link.setAttribute('aria-label', `${label}: ${title}`);
  return item;
}

const lasting = (seconds) => {
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min` : `${seconds} s`;
};

function fill(list, items, nothing) {
  const focused = document.activeElement?.getAttribute('href');
  if (items.length) list.replaceChildren(...items);
  else list.innerHTML = `<li class="faint">${nothing}</li>`;
  if (focused) list.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
}

async function refresh() {
  try {
    const { needsTokens, rooms, streams } = await (await fetch('overview.json')).json();
    const streamLines = streams.map((s) =>
      line(`Mix of ${s.room}`, `${s.bitrate} kbit/s, live for ${lasting(s.seconds)}, ${s.listeners} listening`, 'Listen', `listen/${s.sid}`));
    const roomLines = rooms.map((r) =>
      line(r.name, r.identities.join(', ') || 'nobody here yet', 'Join', `rooms/${encodeURIComponent(r.name)}`));
    // Their pages want an invitation, which this one has not got.
    document.querySelector('#enter').hidden = needsTokens;
    document.querySelector('#invited').hidden = !needsTokens;
    if (needsTokens) for (const item of [...streamLines, ...roomLines]) item.querySelector('a').remove();
    fill(document.querySelector('#streams'), streamLines, 'No streams now.');
    fill(document.querySelector('#rooms'), roomLines, needsTokens ? 'No rooms now.' : 'No rooms now. Enter one, and it is there.');
  } catch {
    fill(document.querySelector('#streams'), [], 'The server does not answer.');
  }
  setTimeout(refresh, REFRESH);
}

document.querySelector('#enter').addEventListener('submit', (event) => {
  event.preventDefault();
  const name = new FormData(event.target).get('name').trim();
  if (name) location.href = `rooms/${encodeURIComponent(name)}`;
});
refresh();
