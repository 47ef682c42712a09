// The token of this tab, and what it may do.
import { computed, signal } from './lib.js';

const KEY = 'flowd.token';
const SCOPES = ['read', 'trigger', 'admin'];

function stored() {
  try {
    return sessionStorage.getItem(KEY) ?? '';
  } catch {
    return '';
  }
}

export const text = signal(stored());
/** What the API says of it: {name, scope, expires_ms}; null while that is not known. */
export const token = signal(null);
/** Why a token is asked for; null while none is. */
export const asked = signal(null);
let waiting = [];

/** Resolves once somebody has given a token. */
export function askForToken(reason) {
  asked.value ??= reason;
  return new Promise(resolve => waiting.push(resolve));
}

export function giveToken(given) {
  text.value = given.trim();
  token.value = null;
  asked.value = null;
  try {
    if (text.value) sessionStorage.setItem(KEY, text.value);
    else sessionStorage.removeItem(KEY);
  } catch { /* Storage is switched off: it lasts as long as the page. */ }
  const all = waiting;
  waiting = [];
  for (const resolve of all) resolve();
}

const scope = computed(() => token.value?.scope ?? null);

/** '' when an action of this scope is allowed, else why it is not. */
export function may(needed) {
  if (scope.value === null) return '';
  if (SCOPES.indexOf(scope.value) >= SCOPES.indexOf(needed)) return '';
  return `this takes the scope “${needed}”; the token ${token.value.name ? `“${token.value.name}” ` : ''}has “${scope.value}”`;
}
