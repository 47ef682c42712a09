// What the nodes have said: all of them by time, or one at a time, what needs a look first.
import { html, useMemo, useState } from '../lib.js';
import { STATES, codeOf } from '../graph/states.js';
import { VirtualTable } from '../table.js';
import { Empty, Glyph, Name } from '../ui.js';
import { byNeed } from './execution_nodes.js';
import { Log } from './log_pane.js';

/** Nodes in these states have not been attempted. */
const SILENT = new Set(['P', 'Q', 'U', 'S']);
const ENDED = new Set(['C', 'F', 'X']);
const ALL = -1;

export function Logs({ execution, nodes, node }) {
  const states = execution.states.data?.states ?? '';
  const [picked, setPicked] = useState(node ?? null);
  const rows = useMemo(() => [ALL, ...byNeed(states, nodes.ids).filter(at => !SILENT.has(states[at]))], [states, nodes]);
  if (rows.length === 1) return html`<${Empty} title="No node has been attempted" />`;
  const columns = [{ id: 'node', head: 'Node', cell: at => (at === ALL ? 'All nodes' : html`<span class="named"><${Glyph} state=${STATES[codeOf(states[at] ?? '?')].name} /><${Name} value=${nodes.ids[at]} mono /></span>`) }];
  const idOf = at => nodes.ids[at] ?? '';
  return html`<div class="logs-view one-line">
    <${VirtualTable} label="Nodes with a log" rows=${rows} columns=${columns} rowId=${idOf} rowClass=${at => (idOf(at) === (picked ?? '') ? 'current' : '')} onOpen=${at => setPicked(at === ALL ? null : nodes.ids[at])} />
    <section class="log-of"><h2>${picked === null ? 'All nodes' : html`<${Name} value=${picked} mono />`}</h2><${Log} key=${picked} execution=${execution} node=${picked} isEnded=${ENDED.has(states[nodes.place.get(picked)])} /></section>
  </div>`;
}
