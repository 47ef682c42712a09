// What an execution is, how it stands and why, and what can be done with it.
import { html } from '../lib.js';
import { Link } from '../router.js';
import { Copy, Counts, Duration, Name, State, Time, number } from '../ui.js';
import { Actions } from './execution_actions.js';
import { Why } from './execution_why.js';

const BY_NEED = [
  ['FAILED', 'F'], ['UPSTREAM', 'U'], ['RETRYING', 'T'], ['WAITING', 'W'], ['RUNNING', 'R'], ['QUEUED', 'Q'],
  ['PENDING', 'P'], ['CANCELLED', 'X'], ['SKIPPED', 'S'], ['COMPLETED', 'C'], ['CORRUPT', '?'],
];

/** By state, those that failed only as something above them did told apart. */
export function countsOf(states, counts) {
  if (!states) return counts ?? {};
  const found = new Map();
  for (const letter of states.states) found.set(letter, (found.get(letter) ?? 0) + 1);
  return Object.fromEntries(BY_NEED.filter(([, letter]) => found.has(letter)).map(([name, letter]) => [name, found.get(letter)]));
}

export function Header({ execution, nodes, node }) {
  const { summary, states } = execution;
  const { data } = summary;
  if (!data) return html`<header class="execution-head"><h1 class="soft">…</h1></header>`;
  const counts = countsOf(states.data, data.counts);
  return html`<header class="execution-head">
    <div class="execution-title">
      <h1><${Name} value=${data.name} /></h1>
      <${State} value=${data.status} word=${data.cancelling ? 'Cancelling' : undefined} />
      <span class="grow"></span>
      <${Actions} execution=${execution} node=${node} />
    </div>
    <${Why} execution=${execution} nodes=${nodes} />
    <div class="execution-facts">
      <span class="fact wide"><${Counts} counts=${counts} /></span>
      <${Facts} execution=${execution} data=${data} />
    </div>
  </header>`;
}

function Facts({ execution: { id }, data }) {
  const labels = Object.entries(data.labels ?? {});
  return html`
    <${Fact} label="Id"><span class="mono">${id}</span><${Copy} text=${id} what="Copied the id" /><//>
    <${Fact} label=${data.triggered_ms ? 'Started' : 'Submitted'}><${Time} ms=${data.triggered_ms ?? data.submitted_ms} /><//>
    ${data.triggered_ms && html`<${Fact} label=${data.finished_ms ? 'Took' : 'For'}><${Duration} ms=${data.duration_ms} since=${data.triggered_ms} until=${data.finished_ms} /><//>`}
    ${data.definition && html`<${Fact} label="Definition"><${Link} to=${`definitions/${data.definition.split('@')[0]}`}><${Name} value=${data.definition} /><//><//>`}
    ${data.parent && html`<${Fact} label="Child of"><${Link} to=${`executions/${data.parent.execution_id}`} query=${{ node: data.parent.node_id }}><span class="mono">${data.parent.execution_id}</span> · <${Name} value=${data.parent.node_id} /><//><//>`}
    ${data.schedule && html`<${Fact} label="Schedule"><${Link} to="schedules" query=${{ name: data.schedule }}><${Name} value=${data.schedule} /><//> <span class="soft">${data.scheduled_at}</span><//>`}
    ${data.rerun_of && html`<${Fact} label="Rerun of"><${Link} to=${`executions/${data.rerun_of}`}><span class="mono">${data.rerun_of}</span><//><//>`}
    ${data.rerun_as && html`<${Fact} label="Rerun as"><${Link} to=${`executions/${data.rerun_as}`}><span class="mono">${data.rerun_as}</span><//><//>`}
    ${labels.length > 0 && html`<${Fact} label="Labels">${labels.map(([key, value]) => html`<${Link} class="chip" to="executions" query=${{ label: `${key}:${value}` }}><${Name} value=${`${key}: ${value}`} /><//>`)}<//>`}
    ${data.usage?.total_tokens > 0 && html`<${Fact} label="Tokens"><span class="num">${number(data.usage.total_tokens)}${data.budget ? ` of ${number(data.budget.tokens)}` : ''}</span><//>`}
    ${data.callback && html`<${Fact} label="Callback">${data.callback.state.toLowerCase()}<//>`}`;
}

function Fact({ label, children }) {
  return html`<span class="fact"><span class="soft">${label}</span> ${children}</span>`;
}
