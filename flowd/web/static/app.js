// The shell: navigation, what a view may need everywhere, and the view the address names.
import { html, render, signal, useEffect, useErrorBoundary, useLayoutEffect, useRef, useState } from './lib.js';
import { api } from './api.js';
import { allKeys, useKeys } from './keys.js';
import { isSettled, liveState, polls } from './live.js';
import { dismiss, notices, spoken } from './notices.js';
import { Link, ROOT, match, navigate, route } from './router.js';
import { NAVIGATION, ROUTES } from './routes.js';
import { clock, keys, paused, theme } from './settings.js';
import { Button, Dialog, Failure, Glyph } from './ui.js';
import { asked, giveToken, text, token } from './token.js';

const isHelpOpen = signal(false);
const GO_MS = 1500;

const LIVE = {
  live: ['Live', 'COMPLETED', 'changes show as they happen'],
  connecting: ['Connecting', 'PENDING', 'the stream of events is being opened'],
  polling: ['Every 5 s', 'WAITING', 'other windows hold the streams a browser has; this one asks every five seconds'],
  lost: ['Reconnecting', 'RETRYING', 'flowd does not answer; what is shown may be old'],
  paused: ['Paused', 'PAUSED', 'nothing is asked until you let it go on'],
  ended: ['Ended', 'COMPLETED', 'nothing more will come'],
  asking: ['Polling', 'COMPLETED', 'this view asks again every few seconds'],
};

function useShellKeys() {
  const going = useRef(0);
  const go = Object.fromEntries(NAVIGATION.filter(([, , key]) => key).map(([path, , key]) => [key, path]));
  useKeys({
    '/': ['to the filters', () => {
      const field = document.querySelector('[data-search]');
      if (!field) return false;
      field.focus();
      field.select?.();
      return true;
    }],
    g: ['then a letter: go to a view', () => { going.current = Date.now(); }],
    e: ['(after g) Executions', () => false],
    '?': ['these keys', () => { isHelpOpen.value = true; }],
    Escape: ['close, or leave a field', event => {
      if (event.target.closest('input, textarea, select')) {
        event.target.blur();
        return true;
      }
      return false;
    }],
  });
  useEffect(() => {
    const follow = event => {
      if (Date.now() - going.current > GO_MS || event.key === 'g') return;
      going.current = 0;
      const path = go[event.key];
      if (path === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      navigate(path);
    };
    addEventListener('keydown', follow, true);
    return () => removeEventListener('keydown', follow, true);
  }, []);
}

function Help() {
  return html`<${Dialog} title="Keys" onClose=${() => { isHelpOpen.value = false; }}>
    <div class="dialog-body">
      <table class="plain"><tbody>
        ${allKeys().filter(([, text]) => !text.startsWith('(')).map(([key, text]) => html`<tr key=${key}><th scope="row"><kbd>${key}</kbd></th><td>${text}</td></tr>`)}
        ${NAVIGATION.filter(([, , key]) => key).map(([path, word, key]) => html`<tr key=${path}><th scope="row"><kbd>g</kbd> <kbd>${key}</kbd></th><td>${word}</td></tr>`)}
      </tbody></table>
      <label class="row"><input type="checkbox" checked=${keys.value === 'on'} onChange=${event => { keys.value = event.target.checked ? 'on' : 'off'; }} /> Keys of one letter are on</label>
    </div>
  <//>`;
}

function AskForToken() {
  const field = useRef(null);
  useLayoutEffect(() => { field.current.focus(); }, []);
  const give = event => {
    event.preventDefault();
    if (field.current.value.trim()) giveToken(field.current.value);
  };
  return html`<section class="ask" aria-labelledby="ask-title">
    <h1 id="ask-title">This flowd takes a token</h1>
    <p class="soft">${text.value ? asked.value : html`<code>flowd token create --name me --scope read</code> makes one.`}</p>
    <form class="row" onSubmit=${give}>
      <label class="visually-hidden" for="token">Token</label>
      <input id="token" ref=${field} class="grow mono" type="password" autocomplete="off" spellcheck=${false} placeholder="flowd_…" />
      <button class="btn primary">Use it</button>
    </form>
    <p class="soft">It stays in this tab, and is gone when you close it.</p>
  </section>`;
}

function Live() {
  const unheard = polls.value > 0 ? 'asking' : isSettled.value ? 'ended' : 'off';
  const state = liveState.value === 'off' ? unheard : liveState.value;
  // Nothing of this view changes by itself.
  if (state === 'off') return html`<div class="live"></div>`;
  const [word, glyph, why] = LIVE[state];
  return html`<div class="live" title=${why}><${Glyph} state=${glyph} /><span class="grow">${word}</span>
    <button class="btn quiet" aria-pressed=${String(paused.value)} onClick=${() => { paused.value = !paused.value; }}>${paused.value ? 'Go on' : 'Pause'}</button>
  </div>`;
}

function Choice({ label, setting, options }) {
  return html`<label class="choice"><span class="soft">${label}</span>
    <select value=${setting.value} onChange=${event => { setting.value = event.target.value; }}>
      ${options.map(([value, word]) => html`<option key=${value} value=${value}>${word}</option>`)}
    </select></label>`;
}

function Side() {
  const first = route.value.path.split('/')[0] || NAVIGATION[0][0];
  const nav = useRef(null);
  // In a small window they stand in a row that scrolls.
  useEffect(() => { nav.current.querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'nearest' }); }, [first]);
  return html`<header class="side">
    <a class="skip" href="#main" onClick=${event => { event.preventDefault(); document.getElementById('main').focus(); }}>To the content</a>
    <${Link} to="" class="brand"><img src=${new URL('icon.svg', import.meta.url).pathname} width="18" height="18" alt="" />flowd<//>
    <nav aria-label="Views" ref=${nav}>${NAVIGATION.map(([path, word]) => html`<${Link} key=${path} to=${path} aria-current=${first === path ? 'page' : undefined}>${word}<//>`)}</nav>
    <div class="side-foot">
      <${Live} />
      <${Choice} label="Clock" setting=${clock} options=${[['local', 'Local'], ['utc', 'UTC']]} />
      <${Choice} label="Theme" setting=${theme} options=${[['system', 'System'], ['light', 'Light'], ['dark', 'Dark']]} />
      <div class="row">
        <button class="btn quiet" onClick=${() => { isHelpOpen.value = true; }}>Keys <kbd>?</kbd></button>
        <a class="btn quiet" href=${new URL('../docs/dashboard', ROOT).pathname}>Manual</a>
      </div>
    </div>
  </header>`;
}

const loaded = new Map();

function useView(load) {
  const [, again] = useState(0);
  const [error, setError] = useState(null);
  useEffect(() => {
    if (!load || loaded.has(load)) return undefined;
    let isWanted = true;
    setError(null);
    load().then(
      module => { loaded.set(load, module.default); if (isWanted) again(count => count + 1); },
      () => { if (isWanted) setError(new Error('this view cannot be loaded; flowd may have been replaced by another version: load the page again')); },
    );
    return () => { isWanted = false; };
  }, [load]);
  return [load ? loaded.get(load) : null, error];
}

function find(path) {
  for (const [pattern, load] of ROUTES) {
    const params = match(pattern, path);
    if (params) return { load, params, pattern };
  }
  return { load: null, params: {}, pattern: null };
}

function View() {
  const { path, query } = route.value;
  const { load, params, pattern } = find(path);
  const [Current, error] = useView(load);
  const [defect, reset] = useErrorBoundary(cause => console.error(cause));
  useEffect(() => { if (defect) reset(); }, [path]);
  if (defect) return html`<${Failure} error=${new Error(`this view has a defect: ${defect.message}`)} retry=${reset} />`;
  if (pattern === null) return html`<h1>Not found</h1><p>There is no view at this address. <${Link} to="">Go to the first one<//>.</p>`;
  if (error) return html`<${Failure} error=${error} retry=${() => location.reload()} />`;
  if (!Current) return null;
  return html`<${Current} key=${pattern.split('/:tab')[0] + JSON.stringify({ ...params, tab: null })} params=${params} query=${query} />`;
}

function Notices() {
  return html`<div class="notices">${notices.value.map(({ id, text: said, kind, to, label }) => html`<div key=${id} class=${`notice ${kind}`}>
    <${Glyph} state=${kind === 'error' ? 'FAILED' : 'COMPLETED'} /><span class="grow">${said}${to && html` <${Link} to=${to}>${label}<//>`}</span>
    <button class="btn quiet icon" aria-label="Close" onClick=${() => dismiss(id)}>✕</button></div>`)}</div>`;
}

let isLooking = false;
async function lookAtToken() {
  if (isLooking || token.peek() || asked.peek()) return;
  isLooking = true;
  try {
    token.value = await api.get('token');
  } catch {
    // Who cannot be told what it may do is told by each answer.
  }
  isLooking = false;
}

function Shell() {
  useShellKeys();
  useEffect(() => { if (!asked.value) lookAtToken(); }, [text.value, asked.value]);
  return html`<${Side} />
    <main id="main" tabindex="-1">${asked.value !== null && html`<${AskForToken} />`}<div class="view" hidden=${asked.value !== null}><${View} /></div></main>
    <${Notices} />
    <div class="visually-hidden" aria-live="polite">${spoken.value}</div>
    ${isHelpOpen.value && html`<${Help} />`}`;
}

// A relative address of an icon would be followed anew from every view.
document.querySelector('link[rel=icon]').href = new URL('icon.svg', import.meta.url).href;
render(html`<${Shell} />`, document.getElementById('app'));
