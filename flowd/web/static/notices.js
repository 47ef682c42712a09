// What is said to whoever looks, and to whoever listens: at most every five seconds.
import { signal } from './lib.js';

const SPOKEN_EVERY_MS = 5_000;
const SHOWN_MS = 8_000;

export const spoken = signal('');
export const notices = signal([]);
let next = null;
let timer = null;
let count = 0;

/** Tells a screen reader; the newest counts where several come within five seconds. */
export function announce(text) {
  next = text;
  if (timer) return;
  const say = () => {
    timer = null;
    if (next === null) return;
    spoken.value = next;
    next = null;
    timer = setTimeout(say, SPOKEN_EVERY_MS);
  };
  say();
}

/** A line at the lower edge, with `to` a link of it. Errors stay until they are closed. */
export function notify(text, { kind = 'done', to = null, label = '' } = {}) {
  const notice = { id: ++count, text, kind, to, label };
  notices.value = [...notices.value.slice(-3), notice];
  announce(text);
  if (kind !== 'error') setTimeout(() => dismiss(notice.id), SHOWN_MS);
}

export function dismiss(id) {
  notices.value = notices.value.filter(notice => notice.id !== id);
}
