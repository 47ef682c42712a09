// When each node stood in the queue, ran, and waited: one row a node, every attempt on it.
import { html, useMemo, useRef, useState } from '../lib.js';
import { api } from '../api.js';
import { duration } from '../format.js';
import { now } from '../settings.js';
import { codeOf, STATES } from '../graph/states.js';
import { VirtualTable } from '../table.js';
import { Empty, Glyph, Loaded, Name, moment, number } from '../ui.js';
import { tookOf, useDetails } from './execution_nodes.js';

const TICKS = 6;
// Further to the right there is no room for words, in percent.
const LABELLED_MAX = 92;
const STEPS_MS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 3e4, 6e4, 12e4, 3e5, 6e5, 18e5, 36e5, 72e5, 216e5, 864e5, 6048e5];

/** Round moments between two, at most TICKS. */
export function ticksOf(begin, end) {
  const step = STEPS_MS.find(one => (end - begin) / one <= TICKS) ?? (end - begin) / TICKS;
  const ticks = [];
  for (let at = 0; at <= end - begin; at += step) ticks.push(at);
  return ticks;
}

/** What of one attempt takes which time: [kind, begin, end]. */
export function spansOf(attempt, state, waiting, until) {
  const { queued_ms: queued, started_ms: started, finished_ms: finished } = attempt;
  const spans = [];
  if (queued) spans.push(['queued', queued, started ?? (['QUEUED', 'PENDING'].includes(state) ? until : finished ?? queued)]);
  const isRunning = state === 'RUNNING' && !finished;
  if (started && !waiting) spans.push([isRunning ? 'runs' : attempt.error ? 'failed' : 'ran', started, finished ?? (isRunning ? until : started)]);
  if (waiting) spans.push(['waited', waiting.since_ms, until]);
  return spans;
}

/** What an attempt waited for after it: the pause before it is tried again, or what woke it. */
export function gapsOf(attempts) {
  return attempts.slice(1).flatMap((next, at) => {
    const { finished_ms: from, error } = attempts[at];
    return from && next.queued_ms > from ? [[error ? 'paused' : 'waited', from, next.queued_ms]] : [];
  });
}

/** Attempts before the newest: asked for only of rows in sight that had some. */
function useAttempts(id) {
  const known = useRef(new Map());
  const [, draw] = useState(0);
  return one => {
    if ((one?.attempt ?? 1) < 2) return [];
    const key = `${id} ${one.node_id} ${one.attempt}`;
    if (!known.current.has(key)) {
      known.current.set(key, []);
      api.get(`workflows/${id}/nodes/${encodeURIComponent(one.node_id)}/attempts`).then(data => {
        known.current.set(key, data.attempts.filter(attempt => attempt.attempt < one.attempt));
        draw(count => count + 1);
      }, () => {});
    }
    return known.current.get(key);
  };
}

function Track({ one, begin, end, earlier }) {
  const until = Math.min(end, Math.max(now.value, begin));
  const spans = [...gapsOf([...earlier, one]), ...earlier.flatMap(attempt => spansOf(attempt, 'FAILED', null, until)), ...spansOf(one, one.state, one.waiting, until)];
  const place = at => `${Math.max(0, Math.min(100, (100 * (at - begin)) / (end - begin)))}%`;
  const words = spans.map(([kind, from, to]) => `${kind} ${duration(to - from)}`).join(', ');
  return html`<span class="track" role="img" aria-label=${words} title=${words}>
    ${spans.map(([kind, from, to], at) => html`<i key=${at} class=${`span ${kind}`} style=${{ left: place(from), width: `max(2px, ${(100 * Math.max(0, to - from)) / (end - begin)}%)` }}></i>`)}
  </span>`;
}

function Scale({ begin, end }) {
  return html`<span class="visually-hidden">Over time</span><span class="track scale" aria-hidden="true">${ticksOf(begin, end).map(at => {
    const place = (100 * at) / (end - begin);
    return html`<i key=${at} class="tick" style=${{ left: `${place}%` }}>${place < LABELLED_MAX ? duration(at) : ''}</i>`;
  })}</span>`;
}

export function Timeline({ execution, nodes, show }) {
  const { timeline, details } = useDetails(execution);
  const states = execution.states.data?.states ?? '';
  const attemptsOf = useAttempts(execution.id);
  const rows = useMemo(() => (timeline.data?.nodes ?? []).map(one => details.get(one.node_id) ?? one), [timeline.data, details]);
  const begin = timeline.data?.triggered_ms ?? Math.min(...rows.map(one => one.queued_ms ?? Infinity));
  const last = rows.reduce((most, one) => Math.max(most, one.finished_ms ?? 0, one.started_ms ?? 0), begin);
  const end = Math.max(begin + 1, timeline.data?.finished_ms ?? (execution.isOver ? last : Math.max(last, now.value)));
  const columns = [
    { id: 'node', head: 'Node', width: '240px', cell: one => html`<span class="named"><${Glyph} state=${STATES[codeOf(states[nodes.place.get(one.node_id)] ?? '?')].name} /><${Name} value=${one.node_id} mono /></span>` },
    { id: 'took', head: 'Took', width: '112px', cls: 'num', cell: one => duration(tookOf(one, now.value)) },
    { id: 'track', cls: 'whole-line', head: html`<${Scale} begin=${begin} end=${end} />`, cell: one => html`<${Track} one=${one} begin=${begin} end=${end} earlier=${attemptsOf(one)} />` },
  ];
  return html`<${Loaded} of=${timeline}>${data => (rows.length
    ? html`<div class="timeline-view two-lines">
      <div class="toolbar soft"><span>From ${moment(begin)}</span><span class="key"><i class="span queued"></i> in the queue</span><span class="key"><i class="span ran"></i> ran</span><span class="key"><i class="span runs"></i> runs</span>
        <span class="key"><i class="span failed"></i> failed attempt</span><span class="key"><i class="span waited"></i> waits</span><span class="key"><i class="span paused"></i> pause before the next attempt</span>
        ${data.more > 0 && html`<span>${number(data.more)} more nodes are not shown</span>`}</div>
      <${VirtualTable} label="Timeline" rows=${rows} columns=${columns} rowId=${one => one.node_id} onOpen=${one => show(one.node_id)} />
    </div>`
    : html`<${Empty} title="Nothing has been queued yet" />`)}<//>`;
}
