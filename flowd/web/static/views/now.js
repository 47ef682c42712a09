// Now: how flowd is in one sentence, what needs somebody, and the last day in bars.
import { html } from '../lib.js';
import { BELL, useLive, useResource } from '../live.js';
import { Link, useTitle } from '../router.js';
import { EXECUTION_STATES } from '../states.js';
import { Bars } from './bars.js';
import { Failure, Glyph, Linked, Loaded, Name, State, Time, bytes, duration, number, plural } from '../ui.js';

const KINDS = {
  health: ['Trouble of flowd itself', 'FAILED'],
  failed: ['Failed in the last 24 hours', 'FAILED'],
  missed: ['Missed times of schedules in the last 24 hours', 'FAILED'],
  waiting_for_signal: ['Waiting for an answer', 'WAITING'],
  retrying: ['Retrying', 'RETRYING'],
  dead_letter: ['Dead letters', 'CORRUPT'],
  stuck: ['No progress', 'RETRYING'],
};

export default function Now() {
  useTitle('Now');
  const overview = useResource('overview', { everyMs: 10_000 });
  const stats = useResource('workflows/stats', { query: { bucket: 'hour' }, everyMs: 60_000 });
  useLive(BELL, () => overview.reload());
  return html`<div class="page">
    <${Loaded} of=${overview}>${data => html`
      <${Health} ...${data.health} />
      <${Tiles} ...${data} />
      <section class="stack" aria-labelledby="needs"><h2 id="needs">What needs you</h2><${Attention} groups=${data.attention} /></section>
    `}<//>
    ${stats.data && html`<${Bars} stats=${stats.data} />`}
  </div>`;
}

function Health({ ok, sentence, problems, risks }) {
  return html`<header class="health">
    <h1 class=${ok ? 's-completed' : 's-failed'}><${Glyph} state=${ok ? 'COMPLETED' : 'FAILED'} size=${18} /> <span>${sentence}</span></h1>
    ${problems.map(one => html`<p class="wrong" key=${one.code}>${one.message}</p>`)}
    ${risks.map(one => html`<p class="soft" key=${one}>${one}</p>`)}
  </header>`;
}

function Tiles({ executions, queue, workers, redis, retries }) {
  return html`<div class="tiles">
    ${EXECUTION_STATES.slice(0, 3).map(state => html`<${Link} class="tile" key=${state} to="executions" query=${{ status: state }}><span class="figure num">${number(executions[state])}</span><${State} value=${state} /><//>`)}
    <div class="tile"><span class="figure num">${number(queue.waiting)}</span><span class="soft">queued${queue.waiting > 0 && queue.oldest_age_ms ? `, oldest ${duration(queue.oldest_age_ms)}` : ''}</span></div>
    <div class="tile"><span class="figure num">${number(queue.in_flight)}</span><span class="soft">${queue.in_flight === 1 ? 'node' : 'nodes'} under way</span></div>
    <div class="tile"><span class="figure num">${number(retries.waiting)}</span><span class="soft">to be retried</span></div>
    <${Link} class="tile" to="system"><span class="figure num">${number(workers.live)}</span><span class="soft">${workers.live === 1 ? 'worker' : 'workers'}${workers.stalled ? `, ${workers.stalled} stalled` : ''}</span><//>
    <${Link} class="tile" to="system"><span class="figure num">${bytes(redis.memory_used)}</span><span class="soft">${redis.memory_max ? `of ${bytes(redis.memory_max)} in Redis` : 'in Redis'}</span><//>
  </div>`;
}

function Attention({ groups }) {
  if (!groups.length) return html`<p class="calm"><${Glyph} state="COMPLETED" /> Nothing. No failure in 24 hours, nobody waits for an answer.</p>`;
  return html`<div class="attention">${groups.map(group => html`<${Group} key=${group.kind} ...${group} />`)}</div>`;
}

const ALL = { failed: ['executions', { status: 'FAILED', since: '24h' }], missed: ['schedules'], dead_letter: ['dead-letters'] };

function Group({ kind, count, sample }) {
  const [title, state] = KINDS[kind] ?? [kind.replaceAll('_', ' '), 'PENDING'];
  const [to, query] = ALL[kind] ?? [];
  return html`<section class="card" aria-label=${title}>
    <div class="row"><h3 class="row"><${Glyph} state=${state} /> ${title} <span class="badge num">${count === null ? 'many' : number(count)}</span></h3>
      ${to && html`<${Link} class="btn quiet right" to=${to} query=${query}>All<//>`}</div>
    <ul class="listed">${sample.map((one, at) => html`<li key=${at}><${Sample} ...${one} /></li>`)}</ul>
    ${count > sample.length && !to && html`<p class="soft">and ${plural(count - sample.length, 'other')}</p>`}
  </section>`;
}

function Sample({ execution_id: id, node_id: node, name, text, at_ms: at, letter_id: letter }) {
  const words = html`<span class="what">${name && html`<strong><${Name} value=${name} /></strong> `}${node && html`<${Name} value=${node} mono /> `}<span class="soft">${text && html`<${Linked} text=${text} />`}</span></span>`;
  const to = id ? `executions/${id}` : letter ? 'dead-letters' : null;
  return html`${to ? html`<${Link} to=${to} query=${{ node }}>${words}<//>` : words}<span class="faint right nowrap"><${Time} ms=${at} relative /></span>`;
}
