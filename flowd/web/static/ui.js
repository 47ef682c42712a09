// What views are made of.
import { html, useEffect, useId, useLayoutEffect, useRef, useState } from './lib.js';
import { apiUrl } from './api.js';
import { ago, duration, moment, number, plural, shellWord, visibleLines, visibleText } from './format.js';
import { announce, notify } from './notices.js';
import { Link, navigate } from './router.js';
import { clock, now } from './settings.js';
import { stateOf } from './states.js';
import { may, text as tokenText } from './token.js';

export { Link };

/** What somebody has named: on its own in the order of the line, controls shown as what they are. */
export function Name({ value, mono, title }) {
  const shown = visibleText(value ?? '–');
  return html`<bdi class=${mono ? 'name mono' : 'name'} title=${title ?? shown}>${shown}</bdi>`;
}

export function Time({ ms, relative = false }) {
  if (ms === null || ms === undefined) return html`<span class="faint">–</span>`;
  const isUtc = clock.value === 'utc';
  const exact = moment(ms, isUtc);
  return html`<time datetime=${new Date(ms).toISOString()} title=${`${exact}${isUtc ? '' : ' local'}`}>${relative ? ago(ms, now.value) : exact}</time>`;
}

/** From a start to an end; while there is no end it goes on, every ten seconds. */
export function Duration({ ms, since, until }) {
  const value = ms ?? (since ? (until ?? now.value) - since : null);
  return html`<span class="num">${duration(value)}</span>`;
}

export function Glyph({ state, size = 14 }) {
  const { shape, glyph, solid, dashed, filled, cls } = stateOf(state);
  return html`<svg class=${`glyph ${cls}`} width=${size} height=${size} viewBox="0 0 16 16" aria-hidden="true" focusable="false">
    <path class=${solid ? 'glyph-solid' : 'glyph-shape'} stroke-dasharray=${dashed ? '2 1.6' : undefined} d=${shape} />
    ${glyph && html`<path class=${solid ? 'glyph-on' : filled ? 'glyph-fill' : 'glyph-line'} d=${glyph} />`}
  </svg>`;
}

export function State({ value, word }) {
  const state = stateOf(value);
  return html`<span class=${`state ${state.cls}`}><${Glyph} state=${value} /><span>${word ?? visibleText(state.word)}</span></span>`;
}

/** A bar of how many are in each state, and the same in words. */
export function Counts({ counts }) {
  const all = Object.entries(counts ?? {}).filter(([, count]) => count);
  const total = all.reduce((sum, [, count]) => sum + count, 0);
  if (!total) return html`<span class="faint">–</span>`;
  const words = all.map(([state, count]) => `${number(count)} ${stateOf(state).word.toLowerCase()}`).join(', ');
  return html`<span class="counts" role="img" aria-label=${words} title=${words}>
    ${all.map(([state, count]) => html`<i class=${stateOf(state).cls} style=${{ flexGrow: count }}></i>`)}
  </span>`;
}

export function Empty({ title, children }) {
  return html`<div class="empty"><p>${title}</p>${children && html`<div class="soft">${children}</div>`}</div>`;
}

/** [a sentence, what is to be listed below it]: nothing is said twice. */
function saidBy({ message, errors = [] }) {
  if (errors.length === 1 && message.endsWith(errors[0].message)) return [message, []];
  return [message.replace(/^(\d+ problems)[:,].*$/s, '$1'), errors.filter(one => one.message)];
}

/** What the API has refused, in its words, and a way to ask again. */
export function Failure({ error, retry, compact = false }) {
  if (!error) return null;
  const [sentence, more] = saidBy(error);
  return html`<div class=${compact ? 'failure compact' : 'failure'} role="alert">
    <${Glyph} state="FAILED" />
    <div class="grow">
      <p>${visibleText(sentence)}</p>
      ${more.length > 0 && html`<ul>${more.slice(0, 50).map(one => html`<li>${one.path && html`<code>${visibleText(one.path)}</code>`} ${visibleText(one.message)}</li>`)}</ul>`}
    </div>
    ${retry && html`<button class="btn" onClick=${retry}>Try again</button>`}
  </div>`;
}

/** Data that is there, on its way, or refused; `children` is a function of it. */
export function Loaded({ of, children, empty }) {
  if (of.data) return html`${of.error && html`<${Failure} error=${of.error} retry=${of.reload} compact />`}${children(of.data)}`;
  if (of.error) return html`<${Failure} error=${of.error} retry=${of.reload} />`;
  return empty ?? html`<p class="loading soft">Loading …</p>`;
}

export function Tabs({ label, tabs, current }) {
  const nav = useRef(null);
  // In a small window they stand in a row that scrolls.
  useEffect(() => { nav.current.querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'nearest' }); }, [current]);
  return html`<nav class="tabs" aria-label=${label} ref=${nav}>
    ${tabs.map(({ id, text, to, query, count }) => html`<${Link} key=${id} to=${to} query=${query} aria-current=${id === current ? 'page' : undefined}>
      ${text}${count !== undefined && count !== null && html` <span class="soft num">${number(count)}</span>`}<//>`)}
  </nav>`;
}

export function Field({ label, hint, error, children }) {
  const id = useId();
  return html`<div class="field">
    <label for=${id}>${label}</label>
    ${children(id, error ? `${id}-e` : undefined)}
    ${hint && html`<p class="soft hint">${hint}</p>`}
    ${error && html`<p class="wrong" id=${`${id}-e`}>${error}</p>`}
  </div>`;
}

export async function copyText(text, what = 'Copied') {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without TLS a browser lends no clipboard: the old way.
    const area = document.createElement('textarea');
    area.value = text;
    (document.querySelector('dialog[open]') ?? document.body).append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
  notify(what);
}

export function Copy({ text, label = 'Copy', what }) {
  return html`<button class="btn quiet" onClick=${() => copyText(text, what ?? 'Copied')}>${label}</button>`;
}

/** A request as a line for a shell. The token stays out of it. */
export function curlOf({ method, path, query, body }) {
  const words = ['curl', '-X', method, shellWord(apiUrl(path, query).href)];
  if (tokenText.value) words.push('-H', '"Authorization: Bearer $FLOWD_TOKEN"');
  if (body !== undefined) words.push('-H', "'Content-Type: application/json'", '-d', shellWord(JSON.stringify(body)));
  return words.join(' ');
}

/** `flowd`: the same on the command line; `request`: {method, path, query, body}. */
export function CopyAs({ flowd, request }) {
  return html`<details class="menu" onKeyDown=${closeOnEscape} onFocusOut=${closeOnLeave}>
    <summary class="btn quiet">Copy as</summary>
    <div class="menu-items">
      ${flowd && html`<button onClick=${event => { closeMenu(event); copyText(flowd, `Copied: ${flowd}`); }}>flowd …</button>`}
      ${request && html`<button onClick=${event => { closeMenu(event); copyText(curlOf(request), 'Copied as curl'); }}>curl …</button>`}
    </div>
  </details>`;
}

function closeMenu(event) {
  const menu = event.currentTarget.closest('details');
  menu.open = false;
  menu.querySelector('summary').focus();
}

function closeOnEscape(event) {
  if (event.key !== 'Escape' || !event.currentTarget.open) return;
  event.preventDefault();
  event.currentTarget.open = false;
  event.currentTarget.querySelector('summary').focus();
}

function closeOnLeave(event) {
  if (event.relatedTarget && !event.currentTarget.contains(event.relatedTarget)) event.currentTarget.open = false;
}

/** A button that says why it may not be pressed. It keeps the focus, so that the reason can be read. */
export function Button({ scope, disabled, kind = '', onClick, children, title, ...rest }) {
  const why = (scope && may(scope)) || (typeof disabled === 'string' ? disabled : '');
  const isOff = Boolean(why) || disabled === true;
  return html`<button class=${`btn ${kind}`} aria-disabled=${isOff ? 'true' : undefined} title=${why || title}
    onClick=${event => (isOff ? why && announce(why) : onClick?.(event))} ...${rest}>${children}</button>`;
}

/** A modal dialog; Escape closes it, and the focus returns to where it was. */
export function Dialog({ title, onClose, children, wide }) {
  const ref = useRef(null);
  const id = useId();
  useLayoutEffect(() => {
    const before = document.activeElement;
    const dialog = ref.current;
    dialog.showModal();
    return () => {
      dialog.close();
      if (before?.isConnected) before.focus();
    };
  }, []);
  return html`<dialog ref=${ref} class=${wide ? 'wide' : ''} aria-labelledby=${id} onCancel=${event => { event.preventDefault(); onClose(); }}>
    <header><h2 id=${id}>${title}</h2><button class="btn quiet icon" aria-label="Close" onClick=${onClose}>✕</button></header>
    ${children}
  </dialog>`;
}

/**
 * Something that is done: a button, a question before it where it destroys, and its commands to copy.
 * `run` returns a promise; `ask` is what the question says; `done` what is said afterwards.
 */
export function Action({ label, scope = 'trigger', kind = '', disabled, ask, confirm, run, done, flowd, request, onDone, shortcut }) {
  const [isAsking, setAsking] = useState(false);
  const [state, setState] = useState({ busy: false, error: null });
  const act = async () => {
    setState({ busy: true, error: null });
    try {
      const answer = await run();
      setState({ busy: false, error: null });
      setAsking(false);
      if (done) notify(typeof done === 'function' ? done(answer) : done);
      onDone?.(answer);
    } catch (error) {
      setState({ busy: false, error });
      if (!isAsking) notify(`${label}: ${error.message}`, { kind: 'error' });
    }
  };
  return html`<${Button} scope=${scope} kind=${kind} disabled=${state.busy || disabled} aria-keyshortcuts=${shortcut}
      onClick=${() => (ask ? setAsking(true) : act())}>${label}<//>
    ${isAsking && html`<${Dialog} title=${label} onClose=${() => setAsking(false)}>
      <div class="dialog-body">${typeof ask === 'function' ? ask() : ask}<${Failure} error=${state.error} compact /></div>
      <footer><${CopyAs} flowd=${flowd} request=${request} /><span class="grow"></span>
        <button class="btn" onClick=${() => setAsking(false)}>Keep</button>
        <${Button} kind=${kind || 'primary'} scope=${scope} disabled=${state.busy} onClick=${act}>${confirm ?? label}<//></footer>
    <//>`}`;
}

const JSON_CHARS_MAX = 100_000;

/** A value as text: cut where it is huge, with a way to copy all of it. */
export function Json({ value, label = 'Copy JSON' }) {
  const [isWhole, setWhole] = useState(false);
  const text = typeof value === 'string' ? value : JSON.stringify(value, null, 2) ?? 'null';
  const isCut = text.length > JSON_CHARS_MAX && !isWhole;
  const shown = visibleLines(isCut ? text.slice(0, JSON_CHARS_MAX) : text);
  return html`<div class="json">
    <div class="json-tools"><${Copy} text=${text} label=${label} /></div>
    <pre tabindex="0">${shown}</pre>
    ${isCut && html`<p class="soft">${number(text.length - JSON_CHARS_MAX)} more characters. <button class="btn quiet" onClick=${() => setWhole(true)}>Show all</button></p>`}
  </div>`;
}

/** Text in which only http and https addresses lead anywhere. */
export function Linked({ text }) {
  const parts = visibleLines(text).split(/(https?:\/\/[^\s<>"'`]*[^\s<>"'`.,;:!?)])/);
  return html`${parts.map((part, at) => (at % 2 ? html`<a href=${part} target="_blank" rel="noopener noreferrer">${part}</a>` : part))}`;
}

export { announce, navigate, notify, plural };
export { bytes, duration, moment, number } from './format.js';
export { useEffect };
