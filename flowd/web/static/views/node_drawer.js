// One node, beside the graph or the table: how it stands, why, what it got and gave, and its log.
import { html, useEffect, useMemo, useState } from '../lib.js';
import { useResource } from '../live.js';
import { Link } from '../router.js';
import { now } from '../settings.js';
import { Button, Copy, Duration, Failure, Json, Linked, Loaded, Name, State, Time, number } from '../ui.js';
import { STATES, codeOf } from '../graph/states.js';
import { VirtualTable } from '../table.js';
import { Answer } from './node_answer.js';
import { Attempts } from './node_attempts.js';
import { Log } from './log_pane.js';
import { byNeed, tookOf } from './execution_nodes.js';

const NEIGHBOURS_MAX = 50;
const ENDED = ['COMPLETED', 'FAILED', 'SKIPPED', 'CANCELLED'];
const SECTIONS = [['about', 'About'], ['config', 'Config'], ['output', 'Output'], ['attempts', 'Attempts'], ['log', 'Log']];

export function Drawer({ execution, nodes, node, group, show, onClose }) {
  return html`<aside class="drawer" aria-label=${group ? group.name : `Node ${node}`}>
    ${group && node === undefined
      ? html`<${Group} group=${group} execution=${execution} nodes=${nodes} show=${show} onClose=${onClose} />`
      : html`<${Node} key=${node} execution=${execution} nodes=${nodes} node=${node} show=${show} onClose=${onClose} />`}
  </aside>`;
}

function Head({ title, children, onClose }) {
  return html`<header class="drawer-head"><h2><${Name} value=${title} mono /></h2>${children}<span class="grow"></span>
    <button class="btn quiet icon" aria-label="Close" aria-keyshortcuts="Escape" onClick=${onClose}>✕</button></header>`;
}

/** The nodes that one shape of the graph stands for. */
function Group({ group, execution, nodes, show, onClose }) {
  const states = execution.states.data?.states ?? '';
  const rows = useMemo(() => {
    const ids = Array.from(group.members, at => nodes.ids[at]);
    const letters = Array.from(group.members, at => states[at] ?? '?').join('');
    return byNeed(letters, ids).map(one => group.members[one]);
  }, [group, states]);
  const columns = [
    { id: 'state', head: 'State', width: '172px', cell: at => html`<${State} value=${STATES[codeOf(states[at] ?? '?')].name} />` },
    { id: 'node', head: 'Node', cell: at => html`<${Name} value=${nodes.ids[at]} mono />` },
  ];
  return html`<${Head} title=${group.name} onClose=${onClose} /><${VirtualTable} label=${group.name} rows=${rows} columns=${columns} rowId=${at => nodes.ids[at]} onOpen=${at => show(nodes.ids[at])} />`;
}

function stateNow(detail, execution, nodes) {
  const at = nodes.place.get(detail.node_id);
  const letter = at === undefined ? null : execution.states.data?.states[at];
  return letter ? STATES[codeOf(letter)].name : detail.state;
}

function Node({ execution, nodes, node, show, onClose }) {
  const { id, rings } = execution;
  const path = `workflows/${id}/nodes/${encodeURIComponent(node)}`;
  const detail = useResource(path, { keep: true });
  const explain = useResource(`workflows/${id}/explain/${encodeURIComponent(node)}`, { keep: true });
  const [section, setSection] = useState('about');
  const letter = execution.states.data?.states[nodes.place.get(node)];
  useEffect(() => {
    if (!rings) return undefined;
    const timer = setTimeout(() => { detail.reload(); explain.reload(); }, 300);
    return () => clearTimeout(timer);
  }, [letter, execution.isOver, nodes.place.has(node) ? 0 : rings]);
  if (!detail.data && detail.error) return html`<${Head} title=${node} onClose=${onClose} /><${Failure} error=${detail.error} retry=${detail.reload} />`;
  const { data } = detail;
  const parts = {
    about: () => html`<${About} execution=${execution} nodes=${nodes} data=${data} explain=${explain} show=${show} reload=${() => { detail.reload(); execution.reload(); }} />`,
    config: () => html`<h3>As written</h3><${Json} value=${data.config} /><h3>As rendered</h3>${data.rendered_config
      ? html`<${Json} value=${data.rendered_config} />` : html`<p class="soft">What it reads is not all there yet.</p>`}`,
    output: () => (data.output === null ? html`<p class="soft">It has no output.</p>` : html`<${Json} value=${data.output} />`),
    attempts: () => html`<${Attempts} execution=${execution} node=${node} newest=${data} />`,
    log: () => html`<${Log} execution=${execution} node=${node} isEnded=${ENDED.includes(data.state)} />`,
  };
  return html`<${Head} title=${node} onClose=${onClose}>${data && html`<${State} value=${stateNow(data, execution, nodes)} />`}<//>
    <div class="tabs" role="tablist" aria-label="Of the node">${SECTIONS.map(([one, text]) => html`<button key=${one} role="tab" class="tab" aria-selected=${one === section} onClick=${() => setSection(one)}>${text}${one === 'attempts' && data?.attempt > 1 && !data.items && !data.child && html` <span class="soft num">${data.attempt}</span>`}</button>`)}</div>
    <div class=${`drawer-body${section === 'log' ? ' fill' : ''}`} role="tabpanel"><${Loaded} of=${detail}>${() => parts[section]()}<//></div>`;
}

function About({ execution, nodes, data, explain, show, reload }) {
  const isOver = ENDED.includes(data.state);
  const isAsking = data.waiting?.waits_for === 'signal';
  const reasons = (explain.data?.nodes[0]?.reasons ?? []).filter(one => !isAsking || one.code !== 'signal');
  const traceback = data.traceback ?? explain.data?.nodes[0]?.traceback;
  return html`
    ${isAsking && html`<${Answer} execution=${execution} data=${data} onDone=${reload} />`}
    ${reasons.length > 0 && html`<ul class="reasons">${reasons.map(one => html`<li key=${one.code}><${Linked} text=${one.message} /></li>`)}</ul>`}
    ${data.error && !reasons.some(one => one.message.includes(data.error)) && html`<p class="error"><${Linked} text=${data.error} /></p>`}
    ${traceback && html`<div class="json"><div class="json-tools"><${Copy} text=${traceback} /></div><pre class="traceback" tabindex="0"><${Linked} text=${traceback} /></pre></div>`}
    <dl class="facts">
      <${Row} label="Handler"><${Name} value=${data.handler} /><//>
      ${data.attempt !== null && html`<${Row} label="Attempt">${data.attempt}${data.retry ? ` · ${data.retry.failures} of ${data.retry.max_attempts} failed` : ''}<//>`}
      ${data.retry?.due_ms && html`<${Row} label="Next attempt"><${Time} ms=${data.retry.due_ms} relative /><//>`}
      ${data.waiting?.until_ms && html`<${Row} label="Waits until"><${Time} ms=${data.waiting.until_ms} /><//>`}
      ${data.queued_ms && html`<${Row} label="Queued"><${Time} ms=${data.queued_ms} /><//>`}
      ${data.started_ms && html`<${Row} label="Started"><${Time} ms=${data.started_ms} /><//>`}
      ${data.queued_ms && data.started_ms && html`<${Row} label="Stood in the queue"><${Duration} ms=${data.started_ms - data.queued_ms} /><//>`}
      ${data.began_ms && html`<${Row} label=${isOver ? 'Took' : 'For'}><${Duration} ms=${tookOf(data, now.value)} /><//>`}
      ${data.cached && html`<${Row} label="Cached">the output of an equal call<//>`}
      ${data.worker && html`<${Row} label="Worker"><${Name} value=${data.worker} mono /><//>`}
      ${data.child && html`<${Row} label="Child"><${Link} to=${`executions/${data.child}`}><span class="mono">${data.child}</span><//><//>`}
      ${data.items && html`<${Row} label="Items">${Object.entries(data.items).filter(([, count]) => count).map(([state, count]) => html`<span class="item-count"><${State} value=${state} /><span class="num">${number(count)}</span></span>`)}<//>`}
    </dl>
    ${data.items && html`<${Items} execution=${execution} node=${data.node_id} show=${show} />`}
    <${Neighbours} label="Depends on" ids=${data.dependencies} execution=${execution} nodes=${nodes} show=${show} />
    <${Neighbours} label="Needed by" ids=${data.dependents} execution=${execution} nodes=${nodes} show=${show} />`;
}

function Row({ label, children }) {
  return html`<dt>${label}</dt><dd>${children}</dd>`;
}

function Neighbours({ label, ids, execution, nodes, show }) {
  if (!ids.length) return null;
  const states = execution.states.data?.states ?? '';
  return html`<h3>${label}</h3><ul class="neighbours">
    ${ids.slice(0, NEIGHBOURS_MAX).map(one => html`<li key=${one}><button class="btn quiet" onClick=${() => show(one)}><${State} value=${STATES[codeOf(states[nodes.place.get(one)] ?? '?')].name} word="" /><${Name} value=${one} mono /></button></li>`)}
    ${ids.length > NEIGHBOURS_MAX && html`<li class="soft">and ${number(ids.length - NEIGHBOURS_MAX)} more</li>`}
  </ul>`;
}

const NEEDY = 'FAILED,RETRYING,WAITING';

/** The items of a map, a page at a time; at first those somebody may have to do something about. */
function Items({ execution, node, show }) {
  const [only, setOnly] = useState(NEEDY);
  const path = `workflows/${execution.id}/nodes/${encodeURIComponent(node)}/items`;
  const page = useResource(path, { query: { limit: 50, state: only }, keep: true });
  useEffect(() => { if (execution.rings) page.reload(); }, [Math.floor(execution.rings / 4), execution.isOver]);
  return html`<div class="row"><h3>Items</h3><span class="grow"></span>
      <${Button} kind="quiet" onClick=${() => setOnly(only ? '' : NEEDY)}>${only ? 'Show all' : 'Only those that failed or wait'}<//></div>
    <${Loaded} of=${page}>${data => html`<ul class="neighbours said">
      ${data.items.map(one => html`<li key=${one.index}><button class="btn quiet" onClick=${() => show(one.node_id)}><${State} value=${one.state} word="" /><${Name} value=${one.node_id} mono /><span class="soft"><${Name} value=${one.error ?? JSON.stringify(one.item)?.slice(0, 80)} /></span></button></li>`)}
      ${data.items.length === 0 && html`<li class="soft">${only ? 'None has failed or waits.' : 'There are none.'}</li>`}
      ${data.next_cursor && html`<li class="soft">Only the first ${data.items.length} are shown.</li>`}
    </ul>`}<//>`;
}
