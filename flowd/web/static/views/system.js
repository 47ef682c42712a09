// System: the processes of this machine, the workers of all, Redis, and what your token may do.
import { html } from '../lib.js';
import { useResource } from '../live.js';
import { useTitle } from '../router.js';
import { Loaded, Name, State, Time, bytes, duration, number, plural } from '../ui.js';
import { giveToken, text, token } from '../token.js';

export default function System() {
  useTitle('System');
  const overview = useResource('overview', { everyMs: 10_000 });
  const processes = useResource('processes', { everyMs: 5_000 });
  const workers = useResource('workers', { everyMs: 10_000 });
  return html`<div class="page">
    <div class="toolbar"><h1>System</h1>${overview.data && html`<span class="soft">flowd ${overview.data.version}</span>`}</div>
    <section class="stack"><h2>Processes of this machine</h2><${Loaded} of=${processes}>${data => html`<${Processes} ...${data} />`}<//></section>
    <section class="stack"><h2>Workers, wherever they are</h2><${Loaded} of=${workers}>${data => html`<${Workers} ...${data} />`}<//></section>
    <div class="columns">
      <section class="card"><h2>Redis and queue</h2><${Loaded} of=${overview}>${data => html`<${Facts} ...${data} />`}<//></section>
      <section class="card"><h2>Your token</h2><${Token} /></section>
    </div>
  </div>`;
}

const STANDING = { RUNNING: 'COMPLETED', STARTING: 'RUNNING', BACKOFF: 'RETRYING', FATAL: 'FAILED', STOPPING: 'PAUSED', STOPPED: 'CANCELLED', EXITED: 'CANCELLED' };
const word = text => text.charAt(0) + text.slice(1).toLowerCase();

function Processes({ pid, processes, uptime_s: uptime }) {
  if (pid === null) return html`<p class="soft">This API runs alone: no supervisor is above it.</p>`;
  return html`<p class="soft">The supervisor is process ${pid}, up for ${duration(uptime * 1000)}.</p><div class="scroll" tabindex="0" role="region" aria-label="Processes of this machine"><table class="plain"><thead><tr><th>Process</th><th>State</th><th class="num">Pid</th><th class="num">Up</th><th class="num">Restarts</th><th class="num">Memory</th><th class="num">CPU</th><th class="num">Under way</th><th class="num">Done</th><th>Remarks</th></tr></thead>
    <tbody>${processes.map(one => html`<tr key=${one.name}><th scope="row"><${Name} value=${one.name} /></th>
      <td><${State} value=${STANDING[one.state] ?? 'PENDING'} word=${word(one.state)} /></td>
      <td class="num">${one.pid ?? '–'}</td><td class="num">${one.uptime_s === null ? '–' : duration(one.uptime_s * 1000)}</td><td class="num">${number(one.restarts)}</td>
      <td class="num">${one.memory_mb === null ? '–' : bytes(one.memory_mb * 2 ** 20)}</td><td class="num">${one.cpu_percent === null ? '–' : `${one.cpu_percent.toFixed(0)} %`}</td>
      <td class="num">${number(one.in_flight)}</td><td class="num">${number(one.done)}</td>
      <td>${one.stalled_s ? html`<span class="wrong">asks for no work for ${duration(one.stalled_s * 1000)}</span>` : html`<span class="soft">${one.last_exit ? `last end: ${one.last_exit}` : ''}</span>`}</td></tr>`)}</tbody></table></div>`;
}

function Workers({ workers }) {
  if (!workers.length) return html`<p class="wrong">No worker is enrolled: nothing runs.</p>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Workers"><table class="plain"><thead><tr><th>Worker</th><th>State</th><th>Host</th><th class="num">Pid</th><th class="num">Under way</th><th>Remarks</th></tr></thead>
    <tbody>${workers.map(one => html`<tr key=${one.name}><th scope="row"><${Name} value=${one.name} mono /></th>
      <td><${State} value=${!one.alive ? 'FAILED' : one.stalled ? 'RETRYING' : 'COMPLETED'} word=${!one.alive ? 'Not alive' : one.stalled ? 'Stalled' : 'Alive'} /></td>
      <td><${Name} value=${one.host} /></td><td class="num">${one.pid ?? '–'}</td><td class="num">${number(one.in_flight)}</td><td class="soft">${one.why_not ?? one.stalled ?? ''}</td></tr>`)}</tbody></table></div>`;
}

function Facts({ redis, queue, events, callbacks, retries, dead_letters: letters, scheduler_ticked_ms: ticked }) {
  return html`<table class="plain says"><tbody>
    <tr><th scope="row">Server</th><td>${redis.server}</td></tr>
    <tr><th scope="row">Memory</th><td class="num">${bytes(redis.memory_used)}${redis.memory_max ? ` of ${bytes(redis.memory_max)}` : ', no limit'}</td></tr>
    <tr><th scope="row">Task stream</th><td class="num">${plural(queue.entries, 'entry', 'entries')}, ${number(queue.waiting)} wait, ${number(queue.in_flight)} under way</td></tr>
    <tr><th scope="row">Retries</th><td class="num">${number(retries.waiting)} wait, ${number(retries.due)} due</td></tr>
    <tr><th scope="row">Callbacks to send</th><td class="num">${number(callbacks)}</td></tr>
    <tr><th scope="row">Dead letters</th><td class="num">${number(letters)}</td></tr>
    <tr><th scope="row">Events kept</th><td class="num">${number(events)}</td></tr>
    <tr><th scope="row">Scheduler</th><td>${ticked ? html`worked <${Time} ms=${ticked} relative />` : 'none runs'}</td></tr>
  </tbody></table>`;
}

function Token() {
  const current = token.value;
  if (!current) return html`<p class="soft">What it may do is not known.</p>`;
  if (!current.required) return html`<p>No token is needed: whoever reaches this machine may do everything.</p><p class="soft"><code>flowd token create</code> makes the first one; from then on every request takes one.</p>`;
  return html`<table class="plain says"><tbody>
    <tr><th scope="row">Name</th><td><${Name} value=${current.name} /></td></tr>
    <tr><th scope="row">Scope</th><td>${current.scope}</td></tr>
    <tr><th scope="row">Expires</th><td>${current.expires_ms ? html`<${Time} ms=${current.expires_ms} />` : 'never'}</td></tr>
    <tr><th scope="row">Allows</th><td>${{ read: 'looking', trigger: 'looking, and to submit, run, cancel, pause, rerun and redrive', admin: 'everything, also to delete' }[current.scope]}</td></tr>
  </tbody></table><button class="btn" disabled=${!text.value} onClick=${() => giveToken('')}>Use another token</button>`;
}
