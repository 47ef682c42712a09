// The nodes as a table, what needs a look first: the equal of the graph.
import { html, useEffect, useMemo, useState } from '../lib.js';
import { useResource } from '../live.js';
import { now } from '../settings.js';
import { CODE_OF, STATES, codeOf } from '../graph/states.js';
import { VirtualTable } from '../table.js';
import { Duration, Empty, Loaded, Name, State, Time, number } from '../ui.js';

const DETAILS_EVERY_MS = 2_000;
const ENDED = ['COMPLETED', 'FAILED', 'SKIPPED', 'CANCELLED'];
const TROUBLED = 'FAILED,RETRYING,WAITING,SKIPPED';

/** Times of all nodes, and what is to be said of those in trouble: asked for now and then. */
export function useDetails({ id, rings, isOver }) {
  const timeline = useResource(`workflows/${id}/timeline`);
  const troubled = useResource(`workflows/${id}/nodes`, { query: { state: TROUBLED, limit: 1000 } });
  useEffect(() => {
    if (!rings) return undefined;
    const timer = setTimeout(() => { timeline.reload(); troubled.reload(); }, DETAILS_EVERY_MS);
    return () => clearTimeout(timer);
  }, [Math.floor(rings / 4), isOver]);
  const details = useMemo(() => {
    const found = new Map();
    for (const one of timeline.data?.nodes ?? []) found.set(one.node_id, one);
    for (const one of troubled.data?.nodes ?? []) found.set(one.node_id, { ...found.get(one.node_id), ...one });
    return found;
  }, [timeline.data, troubled.data]);
  return { timeline, details };
}

/** Indices of the nodes that pass, what needs a look first, then as in the definition. */
export function byNeed(states, ids, { state = '', text = '' } = {}) {
  const piles = STATES.map(() => []);
  const wanted = text.toLowerCase();
  for (let at = 0; at < ids.length; at += 1) {
    const code = codeOf(states[at] ?? '?');
    if (state && CODE_OF[state] !== code) continue;
    if (wanted && !ids[at].toLowerCase().includes(wanted)) continue;
    piles[code].push(at);
  }
  return piles.flat();
}

function columnsOf(nodes, states, details) {
  const of = at => details.get(nodes.ids[at]);
  return [
    { id: 'state', head: 'State', width: '172px', cell: at => html`<${State} value=${STATES[codeOf(states[at] ?? '?')].name} />` },
    { id: 'node', head: 'Node', width: '19%', cell: at => html`<${Name} value=${nodes.ids[at]} mono />` },
    { id: 'handler', head: 'Handler', width: '130px', cls: 'soft', cell: at => html`<${Name} value=${nodes.handlerOf(at)} />` },
    { id: 'attempt', head: 'Attempt', width: '72px', cls: 'num', cell: at => of(at)?.attempt ?? '–' },
    { id: 'started', head: 'Started', width: '166px', cell: at => html`<${Time} ms=${of(at)?.started_ms} />` },
    { id: 'took', head: 'Took', width: '112px', cls: 'num', cell: at => html`<${Duration} ms=${tookOf(of(at), now.value)} />` },
    { id: 'said', head: 'Says', cls: 'soft', cell: at => html`<${Name} value=${saidOf(of(at))} />` },
  ];
}

/** From its first start to its end, or until now; null before it has begun. */
export function tookOf(one, until) {
  if (!one?.began_ms || ENDED.includes(one.state)) return one?.duration_ms ?? null;
  return Math.max(0, until - one.began_ms);
}

const saidOf = one => one?.error ?? one?.skipped_because ?? one?.waiting?.text ?? (one?.cached ? 'cached' : '');

export function Nodes({ execution, nodes, show }) {
  const states = execution.states.data?.states ?? '';
  const { details } = useDetails(execution);
  const [filter, setFilter] = useState({ state: '', text: '' });
  const rows = useMemo(() => byNeed(states, nodes.ids, filter), [states, nodes, filter]);
  const columns = columnsOf(nodes, states, details);
  const present = STATES.filter(({ letter }) => states.includes(letter));
  return html`<div class="nodes-view">
    <div class="toolbar">
      <input type="search" placeholder="Find a node" aria-label="Find a node" value=${filter.text} onInput=${event => setFilter({ ...filter, text: event.target.value })} />
      <select aria-label="State" value=${filter.state} onChange=${event => setFilter({ ...filter, state: event.target.value })}>
        <option value="">Any state</option>${present.map(({ name, word }) => html`<option value=${name}>${word}</option>`)}
      </select>
      <span class="soft num">${rows.length === nodes.count ? number(nodes.count) : `${number(rows.length)} of ${number(nodes.count)}`}</span>
    </div>
    <${Loaded} of=${execution.states}>${() => (rows.length
      ? html`<${VirtualTable} label="Nodes" rows=${rows} columns=${columns} rowId=${at => nodes.ids[at]} onOpen=${at => show(nodes.ids[at])} />`
      : html`<${Empty} title="No node passes" />`)}<//>
  </div>`;
}
