// What can be done with an execution: each also as a command to copy, what destroys with its count.
import { html, useEffect, useState } from '../lib.js';
import { api } from '../api.js';
import { shellWord } from '../format.js';
import { useResource } from '../live.js';
import { Link, navigate } from '../router.js';
import { isTerminal } from '../states.js';
import { Action, Button, CopyAs, Dialog, Failure, Field, Name, copyText, curlOf, notify, number, plural } from '../ui.js';

const ENDED = ['COMPLETED', 'FAILED', 'SKIPPED', 'CANCELLED'];
const PLANNED_MAX = 100;

export function Actions({ execution, node }) {
  const { id, summary } = execution;
  const { data } = summary;
  const isOver = isTerminal(data.status);
  return html`<div class="toolbar">
    ${isOver ? html`<${Rerun} execution=${execution} node=${node} />` : html`<${Steering} execution=${execution} />`}
    <${Compared} id=${id} data=${data} />
    ${data.status !== 'RUNNING' && data.status !== 'PAUSED' && html`<${Delete} id=${id} data=${data} />`}
    <${Commands} id=${id} data=${data} />
  </div>`;
}

/** With what it is a rerun of, else with the last execution of the same name that completed. */
function Compared({ id, data }) {
  const isWanting = data.status === 'FAILED' && !data.rerun_of;
  const good = useResource(isWanting ? 'workflows' : null, { query: { name: data.name, status: 'COMPLETED', limit: 1 } });
  const left = data.rerun_of ?? good.data?.workflows[0]?.execution_id ?? null;
  return html`<${Link} class="btn quiet" to="compare" query=${{ left, right: id }}>${good.data?.workflows.length ? 'Compare with the last good run' : 'Compare'}<//>`;
}

/** Whether there is anything to run again without a node that says where from. */
const hasFailed = ({ counts }) => (counts.FAILED ?? 0) + (counts.CANCELLED ?? 0) > 0;

/** What the buttons do, as lines for a shell. */
function Commands({ id, data }) {
  const path = `workflows/${id}`;
  const verbs = {
    PENDING: [['trigger', 'POST', `workflow/trigger/${id}`, {}]],
    RUNNING: [['pause', 'POST', `${path}/pause`, {}], ['cancel', 'POST', `${path}/cancel`, {}]],
    PAUSED: [['resume', 'POST', `${path}/resume`, {}], ['cancel', 'POST', `${path}/cancel`, {}]],
  }[data.status] ?? [...(hasFailed(data) ? [['rerun', 'POST', `${path}/rerun`, { from: 'failed' }]] : []), ['rm', 'DELETE', path]];
  const copy = text => event => {
    const menu = event.currentTarget.closest('details');
    menu.open = false;
    menu.querySelector('summary').focus();
    copyText(text, `Copied: ${text}`);
  };
  const all = [['get', 'GET', `${path}/summary`], ['explain', 'GET', `${path}/explain`], ...verbs];
  return html`<details class="menu"><summary class="btn quiet">Copy as</summary><div class="menu-items commands">
    ${all.map(([verb, method, at, body]) => html`<span class="row nowrap"><button class="grow" onClick=${copy(`flowd ${verb} ${id}`)}>flowd ${verb}</button><button onClick=${copy(curlOf({ method, path: at, body }))}>curl</button></span>`)}
  </div></details>`;
}

function Steering({ execution: { id, summary, reload } }) {
  const { status, counts, nodes, cancelling } = summary.data;
  const open = nodes - ENDED.reduce((sum, state) => sum + (counts[state] ?? 0), 0);
  const verb = (one, body = {}) => ({ method: 'POST', path: `workflows/${id}/${one}`, body });
  const run = ({ path, body }) => () => api.post(path, body).finally(reload);
  const cancel = verb('cancel', cancelling ? { force: true } : {});
  return html`
    ${status === 'PENDING' && html`<${Action} label="Trigger" kind="primary" run=${run({ path: `workflow/trigger/${id}` })} done="Triggered" />`}
    ${status === 'RUNNING' && html`<${Action} label="Pause" run=${run(verb('pause'))} done="Paused: running nodes finish" />`}
    ${status === 'PAUSED' && html`<${Action} label="Resume" kind="primary" run=${run(verb('resume'))} done="Resumed" />`}
    <${Action} label=${cancelling ? 'Cancel at once' : 'Cancel'} kind="danger" confirm=${`Cancel ${plural(open, 'node')}`} run=${run(cancel)} done="Cancelled"
      flowd=${`flowd cancel ${id}${cancelling ? ' --force' : ''}`} request=${cancel}
      ask=${html`<p>${cancelling ? 'It is being cancelled. This leaves out what cleans up after it. ' : ''}${plural(open, 'node has', 'nodes have')} not ended: what runs is told to stop, and nothing more starts.</p>`} />`;
}

function Delete({ id, data }) {
  return html`<${Action} label="Delete" kind="danger" scope="admin" confirm=${`Delete 1 execution, ${plural(data.nodes, 'node')}`} run=${() => api.del(`workflows/${id}`)} done="Deleted"
    onDone=${() => navigate('executions')} flowd=${`flowd rm ${id} --yes`} request=${{ method: 'DELETE', path: `workflows/${id}` }}
    ask=${html`<p>The execution of ${plural(data.nodes, 'node')} goes, with its outputs, logs and events. Nothing brings them back.</p>`} />`;
}

function Rerun({ execution: { id, summary }, node }) {
  const [from, setFrom] = useState(null);
  const [isCorrecting, setCorrecting] = useState(false);
  return html`
    ${hasFailed(summary.data) && html`<${Button} scope="trigger" kind="primary" onClick=${() => setFrom('failed')}>Rerun from failed<//>`}
    ${node && !node.includes('.') && html`<${Button} scope="trigger" onClick=${() => setFrom(node)}>Rerun from <${Name} value=${node} /><//>`}
    ${!hasFailed(summary.data) && html`<${Button} scope="trigger" kind="quiet" onClick=${() => setCorrecting(true)}>Rerun corrected …<//>`}
    ${(from || isCorrecting) && html`<${RerunDialog} id=${id} from=${from ?? 'failed'} isCorrecting=${isCorrecting} onClose=${() => { setFrom(null); setCorrecting(false); }} />`}`;
}

const TYPED_MS = 350;

/** The corrected workflow that is typed: {text, setText, definition, wrong}; nothing of these before there is one. */
function useCorrection(id, isWanted) {
  const [text, setText] = useState(null);
  const [reading, setReading] = useState(null);
  useEffect(() => {
    if (!isWanted) return;
    // Who only runs it again needs no reader of YAML.
    import('../written.js').then(module => setReading({ read: module.readWorkflow }));
    api.get(`workflows/${id}/definition`).then(
      // A secret is hidden there, and must not be sent back as it is shown.
      definition => setText(before => before ?? (definition.callback?.secret ? '' : JSON.stringify(definition, null, 2))),
      () => setText(before => before ?? ''),
    );
  }, [isWanted]);
  if (!isWanted || text === null || !reading) return { text: null, setText };
  const { workflow: definition, wrong } = reading.read(text);
  return { text, setText, definition, wrong: wrong && `${wrong[0].path}: ${wrong[0].message}` };
}

/** What would run, before it does: as it was, or with a workflow that was corrected. */
export function RerunDialog({ id, from, isCorrecting = false, onClose }) {
  const [planned, setPlanned] = useState({});
  const [state, setState] = useState({ busy: false, error: null });
  const [isOpen, setOpen] = useState(isCorrecting);
  const { text, setText, definition, wrong } = useCorrection(id, isOpen);
  const path = `workflows/${id}/rerun`;
  const body = { from, ...(isOpen && { definition }) };
  const isReady = !isOpen || definition !== undefined;
  useEffect(() => {
    setPlanned({});
    if (!isReady) return undefined;
    const controller = new AbortController();
    const timer = setTimeout(() => {
      api.post(path, { ...body, preview: true }, { signal: controller.signal }).then(data => setPlanned({ data }), error => { if (!controller.signal.aborted) setPlanned({ error }); });
    }, isOpen ? TYPED_MS : 0);
    return () => { clearTimeout(timer); controller.abort(); };
  }, [isOpen, isReady, text]);
  const act = async () => {
    setState({ busy: true, error: null });
    try {
      const made = await api.post(path, body);
      onClose();
      notify(`Runs again as ${made.execution_id}`);
      navigate(`executions/${made.execution_id}`);
    } catch (error) {
      setState({ busy: false, error });
    }
  };
  const { data } = planned;
  const command = `flowd rerun ${id}${isOpen ? ' --with workflow.yaml' : ''}${from === 'failed' ? '' : ` --from ${shellWord(from)}`}`;
  return html`<${Dialog} title=${isCorrecting ? 'Rerun corrected' : from === 'failed' ? 'Rerun from failed' : `Rerun from ${from}`} onClose=${onClose} wide>
    <div class="dialog-body" tabindex="0">
      <label class="row"><input type="checkbox" checked=${isOpen} onChange=${event => setOpen(event.target.checked)} /> With a corrected workflow: what it changes runs too</label>
      ${isOpen && text !== null && html`<${Field} label="Workflow" error=${wrong}>${field => html`<textarea id=${field} class="mono code" rows="12" spellcheck=${false} placeholder="all of it, in YAML or JSON" value=${text} onInput=${event => setText(event.target.value)}></textarea>`}<//>`}
      ${!data && !planned.error && isReady && html`<p class="soft">Looking up what would run …</p>`}
      <${Failure} error=${planned.error ?? state.error} compact />
      ${data && html`<p>A new execution runs <b>${plural(data.runs.length, 'node')}</b> and takes over ${plural(data.reused.length, 'output')}.</p>
        <${Planned} label="Runs" nodes=${data.runs} /><${Planned} label="Stays failed" nodes=${data.left_out} /><${Planned} label="Is not there any more" nodes=${data.removed ?? []} />`}
    </div>
    <footer><${CopyAs} flowd=${command} request=${{ method: 'POST', path, body }} /><span class="grow"></span>
      <button class="btn" onClick=${onClose}>Close</button>
      <${Button} kind="primary" scope="trigger" disabled=${!data || state.busy} onClick=${act}>${data ? `Run ${plural(data.runs.length, 'node')}` : 'Run'}<//></footer>
  <//>`;
}

function Planned({ label, nodes }) {
  if (!nodes.length) return null;
  return html`<h3>${label}</h3><ul class="planned">
    ${nodes.slice(0, PLANNED_MAX).map(one => html`<li key=${one.node_id}><${Name} value=${one.node_id} mono /> <span class="soft">${one.why}</span></li>`)}
    ${nodes.length > PLANNED_MAX && html`<li class="soft">and ${number(nodes.length - PLANNED_MAX)} more</li>`}
  </ul>`;
}
