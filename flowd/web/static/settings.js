// What a person has chosen for this browser: theme, clock, keys; and for this tab: pause.
import { effect, signal } from './lib.js';

function stored(name, initial, allowed) {
  let value = initial;
  try {
    value = localStorage.getItem(`flowd.${name}`) ?? initial;
  } catch { /* Storage is switched off: it lasts as long as the tab. */ }
  const setting = signal(allowed.includes(value) ? value : initial);
  effect(() => {
    const now = setting.value;
    try {
      if (now === initial) localStorage.removeItem(`flowd.${name}`);
      else localStorage.setItem(`flowd.${name}`, now);
    } catch { /* As above. */ }
  });
  return setting;
}

export const theme = stored('theme', 'system', ['system', 'light', 'dark']);
export const clock = stored('clock', 'local', ['local', 'utc']);
export const keys = stored('keys', 'on', ['on', 'off']);
export const paused = signal(false);
export const visible = signal(document.visibilityState === 'visible');
/** Moves every ten seconds while the page is looked at: what says "2 min ago" reads it. */
export const now = signal(Date.now());

document.addEventListener('visibilitychange', () => {
  visible.value = document.visibilityState === 'visible';
  if (visible.value) now.value = Date.now();
});
setInterval(() => { if (visible.value) now.value = Date.now(); }, 10_000);

effect(() => {
  if (theme.value === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
});
