// One execution: its header, and the tabs that show it.
import { html, useEffect, useMemo, useRef, useState } from '../lib.js';
import { useKeys } from '../keys.js';
import { isSettled, useLive, useResource } from '../live.js';
import { navigate, setQuery, useTitle } from '../router.js';
import { isTerminal } from '../states.js';
import { Failure, Loaded, Tabs, announce } from '../ui.js';
import { Graph } from '../graph/graph.js';
import { Drawer } from './node_drawer.js';
import { Header } from './execution_header.js';
import { useHeld } from './execution_why.js';
import { Nodes } from './execution_nodes.js';
import { Timeline } from './execution_timeline.js';
import { Logs } from './execution_logs.js';
import { Definition, Events, Results } from './execution_documents.js';

const TABS = [
  ['graph', 'Graph'], ['nodes', 'Nodes'], ['timeline', 'Timeline'], ['logs', 'Logs'],
  ['events', 'Events'], ['results', 'Results'], ['definition', 'Definition'],
];
const BODIES = { nodes: Nodes, timeline: Timeline, logs: Logs, events: Events, results: Results, definition: Definition };
const EVENTS_MAX = 5_000;
const EXPLAIN_EVERY_MS = 2_000;

/** All that is asked of one execution, and asked again when the bell rings. */
function useExecution(id, tab) {
  const at = path => `workflows/${encodeURIComponent(id)}/${path}`;
  const graph = useResource(at('graph'));
  const states = useResource(at('states'));
  const summary = useResource(at('summary'));
  // It takes the API longest: after what is looked at first.
  const explain = useResource(states.data || states.error ? at('explain') : null);
  const held = useHeld(at('nodes'), states.data);
  const [rings, setRings] = useState(0);
  const events = useRef([]);
  const later = useRef(null);
  const isOver = isTerminal(summary.data?.status) && isTerminal(states.data?.status);
  useLive(summary.data && (!isOver || tab === 'events') ? at('events') : null, came => {
    if (came.length) events.current = [...events.current, ...came].slice(-EVENTS_MAX);
    setRings(count => count + 1);
    if (isOver) return;
    states.reload();
    summary.reload();
    // What is explained costs the API more than what is counted.
    later.current ??= setTimeout(() => {
      later.current = null;
      explain.reload();
      held.reload();
    }, EXPLAIN_EVERY_MS);
  });
  useEffect(() => {
    isSettled.value = isOver;
    return () => { isSettled.value = false; };
  }, [isOver]);
  useEffect(() => () => {
    clearTimeout(later.current);
    later.current = null;
    events.current = [];
  }, [id]);
  const reload = () => {
    for (const one of [summary, states, explain, held]) one.reload();
    setRings(count => count + 1);
  };
  return { id, summary, graph, states, explain, held, events, rings, isOver, reload };
}

export default function Execution({ params, query }) {
  const { id, tab = 'graph' } = params;
  const execution = useExecution(id, tab);
  const { summary, graph, states } = execution;
  const [group, setGroup] = useState(null);
  const name = summary.data?.name;
  const status = summary.data?.status;
  useTitle(name ? `${status} · ${name}` : 'Execution');
  useEffect(() => { if (status) announce(`${name}: ${status.toLowerCase()}`); }, [status]);
  const show = node => {
    setGroup(null);
    setQuery({ node });
  };
  const showGroup = one => {
    setGroup(one);
    if (query.node) setQuery({ node: null });
  };
  const close = () => {
    setGroup(null);
    if (query.node) setQuery({ node: null });
    document.querySelector('.g-host, .execution-main [tabindex="0"]')?.focus({ preventScroll: true });
  };
  const isOpen = query.node !== undefined || group !== null;
  useKeys({ Escape: ['close the node', () => (isOpen ? close() : false)], ...tabKeys(id, query) });
  const nodes = useMemo(() => graph.data && rowsOf(graph.data), [graph.data]);
  if (!summary.data && summary.error) return html`<${Failure} error=${summary.error} retry=${summary.reload} />`;
  const given = { execution, nodes, show, node: query.node };
  const Body = BODIES[tab];
  return html`<div class="page fill execution">
    <${Header} execution=${execution} nodes=${nodes} node=${query.node} />
    <${Tabs} label="Views of the execution" current=${tab} tabs=${TABS.map(([one, text]) => ({ id: one, text, to: pathOf(id, one), query: query.node ? { node: query.node } : undefined }))} />
    <div class=${`execution-body${isOpen ? ' with-drawer' : ''}`}>
      <div class="execution-main"><${Loaded} of=${graph}>${data => (Body
        ? html`<${Body} ...${given} />`
        : html`<${Graph} graph=${data} states=${states.data?.states ?? '?'.repeat(data.nodes)} items=${states.data?.items} selected=${query.node} onSelect=${show} onGroup=${showGroup} />`)}<//></div>
      ${isOpen && nodes && html`<${Drawer} ...${given} group=${group} onClose=${close} />`}
    </div>
  </div>`;
}

const pathOf = (id, tab) => (tab === 'graph' ? `executions/${id}` : `executions/${id}/${tab}`);

function tabKeys(id, query) {
  const go = tab => navigate(pathOf(id, tab), { query: query.node ? { node: query.node } : undefined });
  return Object.fromEntries(TABS.map(([tab, text], at) => [String(at + 1), [`the tab ${text}`, () => go(tab)]]));
}

/** What never changes of the nodes: ids with their places, handlers, who stands above and below. */
function rowsOf(graph) {
  return {
    count: graph.nodes,
    ids: graph.ids,
    place: new Map(graph.ids.map((one, at) => [one, at])),
    handlerOf: at => graph.handlers[graph.handler[at]],
    isMap: at => graph.maps.includes(at),
  };
}
