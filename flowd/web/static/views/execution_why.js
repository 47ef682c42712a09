// Why an execution stands where it stands: a sentence, and the nodes that hold it up, each a link.
import { html } from '../lib.js';
import { useResource } from '../live.js';
import { Link } from '../router.js';
import { isTerminal } from '../states.js';
import { Glyph, Linked, Name, Time, plural } from '../ui.js';

// Of each kind; the tab Nodes has them all.
const SHOWN_MAX = 2;
const ASKED_MAX = 100;
/** What explain says of a node that only has its turn still to come. */
const IN_ORDER = new Set(['waiting_for', 'opening', 'running', 'taken', 'queued', 'window_full', 'not_triggered', 'limit_reached', 'paused', 'execution_ended', 'moving', 'completed', 'skipped', 'cancelled', 'dependency_failed']);

/** What failed and what waits of an execution that has not ended: asked for as often as what explains it. */
export function useHeld(path, states) {
  const isHeld = states && !isTerminal(states.status) && /[FW]/.test(states.states);
  return useResource(isHeld ? path : null, { query: { state: 'FAILED,WAITING', limit: ASKED_MAX } });
}

/** {signal, failed, other}: of each kind {node, state, text, child, until}. */
export function linesOf({ letters, ids, held, explained, isOver }) {
  const known = new Map(held.map(one => [one.node_id, one]));
  const lines = { signal: [], failed: [], other: [] };
  for (let at = letters.indexOf('F'); at >= 0; at = letters.indexOf('F', at + 1)) lines.failed.push({ node: ids[at], text: known.get(ids[at])?.error });
  if (isOver) return lines;
  for (const { node_id: node, waiting } of held) {
    if (waiting?.waits_for === 'signal') lines.signal.push({ node, text: waiting.text, until: waiting.until_ms });
    else if (waiting?.waits_for === 'child') lines.other.push({ node, state: 'WAITING', child: waiting.text });
  }
  const isSaid = new Set([...lines.signal, ...lines.failed, ...lines.other].map(one => one.node));
  for (const { node_id: node, state, reasons } of explained) {
    const reason = reasons.find(({ code }) => !IN_ORDER.has(code));
    if (reason && !isSaid.has(node)) lines.other.push({ node, state, text: reason.message });
  }
  return lines;
}

export function Why({ execution, nodes }) {
  const { id, summary, states, explain, held } = execution;
  const { data } = summary;
  const why = data.status === 'FAILED' && data.error ? data.error : explain.data?.summary;
  const lines = states.data && nodes
    ? linesOf({ letters: states.data.states, ids: nodes.ids, held: held.data?.nodes ?? [], explained: explain.data?.nodes ?? [], isOver: isTerminal(data.status) })
    : { signal: [], failed: [], other: [] };
  return html`<div class="execution-why"><p>${why ? html`<${Linked} text=${why} />` : html`<span class="faint">…</span>`}</p>
    <ul class="held">
      ${lines.signal.slice(0, SHOWN_MAX).map(one => html`<${Held} key=${one.node} id=${id} state="WAITING" node=${one.node} isAsking>waits for an answer${one.text && html`: <${Linked} text=${one.text} />`}${one.until && html`, until <${Time} ms=${one.until} />`}
<//>`)}
      ${lines.failed.slice(0, SHOWN_MAX).map(one => html`<${Held} key=${one.node} id=${id} state="FAILED" node=${one.node}>failed${one.text && html`: <${Linked} text=${one.text} />`}<//>`)}
      ${lines.other.slice(0, SHOWN_MAX).map(one => html`<${Held} key=${one.node} id=${id} state=${one.state} node=${one.node}>${one.child
        ? html`waits for its child <${Link} class="mono" to=${`executions/${one.child}`}>${one.child}<//>` : html`– <${Linked} text=${one.text} />`}<//>`)}
      <${More} id=${id} lines=${lines} />
    </ul></div>`;
}

function Held({ id, node, state, isAsking, children }) {
  return html`<li><${Glyph} state=${state} /><span><${Link} to=${`executions/${id}`} query=${{ node }}><${Name} value=${node} mono /><//> ${children}</span>${isAsking && html`<${Link} class="btn" to=${`executions/${id}`} query=${{ node }}>Answer …<//>`}</li>`;
}

function More({ id, lines }) {
  const hidden = Object.values(lines).reduce((sum, of) => sum + Math.max(0, of.length - SHOWN_MAX), 0);
  return hidden > 0 && html`<li><${Link} to=${`executions/${id}/nodes`}>and ${plural(hidden, 'other node')}<//></li>`;
}
