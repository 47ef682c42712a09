// What an execution has told, what it came to, and what it was told to do.
import { html, useEffect, useMemo, useState } from '../lib.js';
import { errorOf, send } from '../api.js';
import { useResource } from '../live.js';
import { VirtualTable } from '../table.js';
import { Button, Copy, CopyAs, Empty, Json, Loaded, Name, Time, notify, number } from '../ui.js';
import { Lines } from './lines.js';

/** Nodes with outputs; of so many at most all outputs are asked for at once. */
const WHOLE_MAX = 50;

const DETAIL_OF = [
  ['error', one => one], ['waits_for', one => `waits for: ${one}`], ['woken_by', one => `woken by: ${one}`], ['cached', () => 'cached'], ['ran_ms', one => `ran ${number(one)} ms`], ['worker', one => one],
];

export function Events({ execution, nodes, show }) {
  const all = execution.events.current;
  const [text, setText] = useState('');
  const rows = useMemo(() => {
    const wanted = text.toLowerCase();
    const passing = all.filter(one => !wanted || one.type.includes(wanted) || (one.data.node_id ?? '').toLowerCase().includes(wanted));
    return passing.map((one, at) => ({ ...one, at })).reverse();
  }, [all, text]);
  const columns = [
    { id: 'time', head: 'At', width: '180px', cell: one => html`<${Time} ms=${one.data.at_ms} />` },
    { id: 'type', head: 'Event', width: '190px', cell: one => html`<${Name} value=${one.type} mono />` },
    { id: 'node', head: 'Node', width: '240px', cell: one => (one.data.node_id ? html`<${Name} value=${one.data.node_id} mono />` : html`<span class="faint">–</span>`) },
    { id: 'attempt', head: 'Attempt', width: '80px', cls: 'num', cell: one => one.data.attempt ?? '–' },
    { id: 'said', head: 'Says', cls: 'soft', cell: one => html`<${Name} value=${DETAIL_OF.filter(([key]) => one.data[key] !== undefined && one.data[key] !== null).map(([key, say]) => say(one.data[key])).join(' · ')} />` },
  ];
  return html`<div class="events-view">
    <div class="toolbar"><input type="search" placeholder="Type or node" aria-label="Find events" value=${text} onInput=${event => setText(event.target.value)} />
      <span class="soft num">${number(rows.length)} ${rows.length === 1 ? 'event' : 'events'}, the newest first</span></div>
    ${rows.length ? html`<${VirtualTable} label="Events" rows=${rows} columns=${columns} rowId=${one => one.at} onOpen=${one => nodes.place.has(one.data.node_id) && show(one.data.node_id)} />` : html`<${Empty} title="No events">flowd keeps the newest 50,000 of all executions.<//>`}
  </div>`;
}

async function download(id, path) {
  const response = await send('GET', path);
  if (!response.ok) throw await errorOf(response);
  const link = document.createElement('a');
  link.href = URL.createObjectURL(await response.blob());
  link.download = `${id}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function Results({ execution, nodes, show }) {
  const { id, summary, states } = execution;
  const isSmall = nodes.count <= WHOLE_MAX;
  const output = useResource(summary.data?.status === 'COMPLETED' && isSmall ? `workflows/${id}/output` : null);
  const results = useResource(isSmall ? `workflows/${id}/results` : null);
  useEffect(() => { if (execution.rings && isSmall) results.reload(); }, [Math.floor(execution.rings / 4), execution.isOver]);
  const letters = states.data?.states ?? '';
  const rows = useMemo(() => nodes.ids.filter((_, at) => letters[at] === 'C'), [letters, nodes]);
  const save = () => download(id, `workflows/${id}/results`).catch(error => notify(error.message, { kind: 'error' }));
  return html`<div class=${`results-view${isSmall ? '' : ' many'}`}>
    <div class="toolbar"><span class="soft num">${number(rows.length)} of ${number(nodes.count)} nodes have an output</span><span class="grow"></span><${Button} onClick=${save}>Download as JSON<//></div>
    ${isSmall
      ? html`<div class="documents">${output.data && html`<section class="stack"><h2>Output of the execution</h2><${Json} value=${output.data.output} /></section>`}
        <${Loaded} of=${results}>${data => Object.entries(data.results).map(([node, one]) => html`<section key=${node} class="stack"><h2><button class="btn quiet" onClick=${() => show(node)}><${Name} value=${node} mono /></button></h2><${Json} value=${one} /></section>`)}<//></div>`
      : html`<${VirtualTable} label="Nodes with an output" rows=${rows} columns=${[{ id: 'node', head: 'Node', cell: one => html`<${Name} value=${one} mono />` }]} rowId=${one => one} onOpen=${show} />`}
  </div>`;
}

export function Definition({ execution }) {
  const { id, summary } = execution;
  const definition = useResource(`workflows/${id}/definition`);
  const text = useMemo(() => definition.data && JSON.stringify(definition.data, null, 2), [definition.data]);
  const lines = useMemo(() => text?.split('\n'), [text]);
  return html`<div class="definition-view"><${Loaded} of=${definition}>${() => html`
    <div class="toolbar"><span class="soft num">${number(lines.length)} lines</span><span class="grow"></span>
      ${summary.data?.input && html`<${Copy} text=${JSON.stringify(summary.data.input, null, 2)} label="Copy the input" what="Copied the input it was started with" />`}
      <${Copy} text=${text} label="Copy the definition" what="Copied the definition" /><${CopyAs} flowd=${`flowd definition ${id}`} request=${{ method: 'GET', path: `workflows/${id}/definition` }} /></div>
    <${Lines} lines=${lines} label="Definition" />`}<//></div>`;
}

