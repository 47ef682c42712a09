// Two executions side by side: the first node that differs, then all that do.
import { html, useMemo, useState } from '../lib.js';
import { useResource } from '../live.js';
import { moment, visibleText } from '../format.js';
import { Link, setQuery, useTitle } from '../router.js';
import { clock, now } from '../settings.js';
import { stateOf } from '../states.js';
import { VirtualTable } from '../table.js';
import { Button, Duration, Empty, Failure, Json, Loaded, Name, State, Time, plural } from '../ui.js';
import { STATES, codeOf } from '../graph/states.js';
import { tookOf } from './execution_nodes.js';

const SIDES = ['left', 'right'];

function useSide(id) {
  const path = one => (id ? `workflows/${encodeURIComponent(id)}/${one}` : null);
  return {
    id,
    summary: useResource(path('summary')),
    graph: useResource(path('graph')),
    states: useResource(path('states')),
    definition: useResource(path('definition')),
    timeline: useResource(path('timeline')),
  };
}

/** What is to be compared of each node: {state, written, times}, by its id, in the order of the graph. */
export function nodesOf({ graph, states, definition, timeline }) {
  const times = new Map((timeline?.nodes ?? []).map(one => [one.node_id, one]));
  const written = new Map([...definition.dag.nodes, ...(definition.dag.finally ?? [])].map(one => [one.id, JSON.stringify(one)]));
  return new Map(graph.ids.map((id, at) => [id, { state: STATES[codeOf(states.states[at])].name, written: written.get(id), times: times.get(id) }]));
}

/** Every node that one lacks, or that came to another state, or was told otherwise. */
export function differencesOf(left, right) {
  const rows = [];
  for (const id of new Set([...left.keys(), ...right.keys()])) {
    const [one, other] = [left.get(id), right.get(id)];
    const whats = [
      !one && 'only right', !other && 'only left',
      one && other && one.state !== other.state && 'state', one && other && one.written !== other.written && 'definition',
    ].filter(Boolean);
    if (whats.length) rows.push({ id, left: one, right: other, what: whats.join(', ') });
  }
  return rows;
}

export default function Compare({ query }) {
  useTitle('Compare');
  const [left, right] = [useSide(query.left), useSide(query.right)];
  const sides = [left, right];
  const isThere = sides.every(one => one.graph.data && one.states.data && one.definition.data);
  const rows = useMemo(() => {
    if (!isThere) return [];
    const [one, other] = sides.map(side => nodesOf({ graph: side.graph.data, states: side.states.data, definition: side.definition.data, timeline: side.timeline.data }));
    return differencesOf(one, other);
  }, [isThere, ...sides.flatMap(one => [one.states.data, one.timeline.data])]);
  const error = sides.flatMap(one => [one.summary.error, one.graph.error, one.states.error, one.definition.error]).find(Boolean);
  return html`<div class="page fill compare">
    <${Choose} query=${query} name=${sides.map(one => one.summary.data?.name).find(Boolean)} />
    ${error && html`<${Failure} error=${error} />`}
    <div class="compare-heads">${sides.map((one, at) => html`<${Side} key=${SIDES[at]} side=${one} word=${SIDES[at]} />`)}</div>
    ${isThere ? html`<${Differences} rows=${rows} query=${query} />` : query.left && query.right && !error && html`<p class="loading soft">Loading …</p>`}
  </div>`;
}

function Choose({ query, name }) {
  const [ids, setIds] = useState({ left: query.left ?? '', right: query.right ?? '' });
  // Those of the same name as the one that is there already.
  const newest = useResource('workflows', { query: { name, limit: 50 } });
  const show = chosen => setQuery({ left: chosen.left.trim() || null, right: chosen.right.trim() || null, node: null });
  const choose = (one, text) => {
    const chosen = { ...ids, [one]: text };
    setIds(chosen);
    if (newest.data?.workflows.some(row => row.execution_id === text)) show(chosen);
  };
  const go = event => {
    event.preventDefault();
    show(ids);
  };
  return html`<form class="toolbar" onSubmit=${go}><h1>Compare</h1>
    ${SIDES.map(one => html`<input key=${one} class="mono" list="newest" autocomplete="off" aria-label=${`Id of the ${one} execution`} placeholder=${`${one}: choose one, or an id`} size="28" value=${ids[one]} onInput=${event => choose(one, event.target.value)} />`)}
    <datalist id="newest">${(newest.data?.workflows ?? []).map(row => html`<option key=${row.execution_id} value=${row.execution_id} label=${visibleText(`${row.name}, ${stateOf(row.status).word.toLowerCase()}, ${moment(row.submitted_ms, clock.value === 'utc')}`)} />`)}</datalist>
    <${Button} kind="primary" type="submit">Compare<//>
  </form>`;
}

function Side({ side, word }) {
  const { data } = side.summary;
  if (!data) return html`<div class="compare-side soft">${side.summary.error ? `There is no ${word} one.` : side.id ? 'Loading …' : `Choose the ${word} one above.`}</div>`;
  return html`<div class="compare-side"><h2><${Link} to=${`executions/${side.id}`}><${Name} value=${data.name} /><//></h2> <${State} value=${data.status} />
    <span class="soft"><${Time} ms=${data.triggered_ms ?? data.submitted_ms} /> · <${Duration} ms=${data.duration_ms} since=${data.triggered_ms} until=${data.finished_ms} />${data.definition && html` · <${Name} value=${data.definition} />`}</span></div>`;
}

function Differences({ rows, query }) {
  if (!rows.length) return html`<${Empty} title="No node differs">Each was told the same and came to the same state.<//>`;
  const side = (row, one) => (row[one] ? html`<span class="row nowrap"><${State} value=${row[one].state} /><span class="soft"><${Duration} ms=${tookOf(row[one].times, now.value)} /></span></span>` : html`<span class="faint">–</span>`);
  const columns = [
    { id: 'node', head: 'Node', cell: row => html`<${Name} value=${row.id} mono />` },
    { id: 'left', head: 'Left', width: '27%', cell: row => side(row, 'left') },
    { id: 'right', head: 'Right', width: '27%', cell: row => side(row, 'right') },
    { id: 'what', head: 'Differs in', width: '21%', cls: 'soft', cell: row => row.what },
  ];
  const shown = rows.find(row => row.id === query.node) ?? rows[0];
  return html`<p class="compare-first">The first of ${plural(rows.length, 'node')} that ${rows.length === 1 ? 'differs' : 'differ'} is <${Name} value=${rows[0].id} mono />: ${rows[0].what}.</p>
    <div class="execution-body with-drawer"><div class="execution-main"><${VirtualTable} label="Nodes that differ" rows=${rows} columns=${columns} rowId=${row => row.id} onOpen=${row => setQuery({ node: row.id }, { replace: true })} /></div>
      <aside class="drawer" aria-label=${`Node ${shown.id}`}><header class="drawer-head"><h2><${Name} value=${shown.id} mono /></h2></header><div class="drawer-body">
        ${SIDES.map(one => html`<${OneSide} key=${one + shown.id} word=${one} id=${query[one]} node=${shown[one] ? shown.id : null} />`)}</div></aside></div>`;
}

function OneSide({ word, id, node }) {
  const detail = useResource(node ? `workflows/${id}/nodes/${encodeURIComponent(node)}` : null);
  if (!node) return html`<h3>${word === 'left' ? 'Left' : 'Right'}</h3><p class="soft">It is not there.</p>`;
  return html`<h3>${word === 'left' ? 'Left' : 'Right'}</h3><${Loaded} of=${detail}>${data => html`<${State} value=${data.state} />
    ${data.error && html`<p class="error"><${Name} value=${data.error} /></p>`}<${Json} value=${{ config: data.rendered_config ?? data.config, output: data.output }} />`}<//>`;
}
