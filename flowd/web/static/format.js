// Numbers and names as text. Pure: what changes with the clock is given.

export const number = value => (value === null || value === undefined ? '–' : value.toLocaleString('en'));

export function duration(ms) {
  if (ms === null || ms === undefined) return '–';
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  const s = ms / 1000;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  const m = Math.floor(s / 60);
  if (m < 60) return Math.floor(s % 60) ? `${m} min ${Math.floor(s % 60)} s` : `${m} min`;
  const h = Math.floor(m / 60);
  if (h < 48) return m % 60 ? `${h} h ${m % 60} min` : `${h} h`;
  return h % 24 ? `${Math.floor(h / 24)} d ${h % 24} h` : `${h / 24} d`;
}

export function ago(ms, now) {
  const s = Math.floor((now - ms) / 1000);
  if (s < 0) return `in ${duration(ms - now)}`;
  if (s < 10) return 'just now';
  if (s < 60) return `${Math.floor(s / 10) * 10} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  return s < 172_800 ? `${Math.floor(s / 3600)} h ago` : `${Math.floor(s / 86_400)} d ago`;
}

const two = value => String(value).padStart(2, '0');

/** Sortable, to the second: `2026-01-31 12:00:00`, with a Z in UTC. */
export function moment(ms, isUtc) {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return '–';
  const [year, month, day, hour, minute, second] = isUtc
    ? [date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate(), date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds()]
    : [date.getFullYear(), date.getMonth(), date.getDate(), date.getHours(), date.getMinutes(), date.getSeconds()];
  return `${year}-${two(month + 1)}-${two(day)} ${two(hour)}:${two(minute)}:${two(second)}${isUtc ? 'Z' : ''}`;
}

export function bytes(value) {
  if (value === null || value === undefined) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024;
    at += 1;
  }
  return `${at && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[at]}`;
}

// Controls, and what turns the order of a line round: shown as what they are.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]/gu;

export function visibleText(text) {
  return String(text).replace(HIDDEN, one => `\\u${one.codePointAt(0).toString(16).padStart(4, '0')}`);
}

/** As visibleText, but lines and tabs stay: for output and logs. */
export function visibleLines(text) {
  return String(text).replace(HIDDEN, one => (one === '\n' || one === '\t' ? one : `\\u${one.codePointAt(0).toString(16).padStart(4, '0')}`));
}

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

/** A word of a shell's line, quoted where it has to be. */
export function shellWord(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
