// Level meters: one line per participant, from the volumes of the timed metadata.

const FLOOR = -60; // dBFS at the left end

export class Meters {
  #list;
  #lines = new Map();

  constructor(list) {
    this.#list = list;
  }

  /**
   * @param {Record<string, number>} volumes by identity: 0 … 32767, or -1 while muted
   * @param {string} [own] whose identity is one's own
   */
  show(volumes, own) {
    for (const [identity, line] of this.#lines) {
      line.querySelector('.you').hidden = identity !== own;
      if (Object.hasOwn(volumes, identity)) continue;
      line.remove();
      this.#lines.delete(identity);
    }
    for (const [identity, volume] of Object.entries(volumes)) {
      draw(this.#lines.get(identity) ?? this.#add(identity), volume);
    }
  }

  #add(identity) {
    const line = document.createElement('li');
    line.className = 'speaker';
    line.innerHTML = '<span><span class="name"></span> <span class="you faint" hidden>(you)</span></span><div class="meter" role="meter"><div></div></div><span class="level"></span>';
    line.querySelector('.name').textContent = identity;
    const meter = line.querySelector('.meter');
    meter.setAttribute('aria-label', `Level of ${identity}`);
    meter.setAttribute('aria-valuemin', FLOOR);
    meter.setAttribute('aria-valuemax', 0);
    this.#list.append(line);
    this.#lines.set(identity, line);
    return line;
  }
}

function draw(line, volume) {
  const muted = volume < 0;
  const decibels = Math.max(FLOOR, Math.round(20 * Math.log10(Math.max(volume, 1) / 32767)));
  const text = muted ? 'muted' : decibels <= FLOOR ? 'silent' : `${decibels} dBFS`;
  const meter = line.querySelector('.meter');
  line.classList.toggle('muted', muted);
  line.dataset.volume = volume;
  meter.firstElementChild.style.clipPath = `inset(0 ${muted ? 100 : (100 * decibels) / FLOOR}% 0 0)`;
  meter.setAttribute('aria-valuenow', muted ? FLOOR : decibels);
  meter.setAttribute('aria-valuetext', text);
  line.querySelector('.level').textContent = text;
}
