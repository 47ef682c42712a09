// What is done to several executions at once: first how many it is, then each by itself.
import { html, useState } from '../lib.js';
import { ApiError, api } from '../api.js';
import { notify } from '../notices.js';
import { isTerminal } from '../states.js';
import { Button, Copy, Dialog, Failure, Name, State, number, plural } from '../ui.js';

const AT_ONCE = 4;
const SHOWN = 8;

const KINDS = {
  cancel: {
    label: 'Cancel', scope: 'trigger', kind: '', fits: row => !isTerminal(row.status), not: 'have ended already',
    send: id => api.post(`workflows/${id}/cancel`), flowd: id => `flowd cancel ${id}`,
  },
  rerun: {
    label: 'Rerun', scope: 'trigger', kind: '', fits: row => row.status === 'FAILED' || row.status === 'CANCELLED', not: 'have not failed',
    send: id => api.post(`workflows/${id}/rerun`, { from: 'failed' }), flowd: id => `flowd rerun ${id}`,
  },
  delete: {
    label: 'Delete', scope: 'admin', kind: 'danger', fits: row => row.status !== 'RUNNING', not: 'run',
    send: id => api.del(`workflows/${id}`), flowd: id => `flowd rm ${id}`,
  },
};

export function Bulk({ rows, onDone, onClear }) {
  const [asked, setAsked] = useState(null);
  return html`<div class="bulk" role="region" aria-label="Selected executions">
    <strong class="num">${plural(rows.length, 'execution')} selected</strong>
    ${Object.entries(KINDS).map(([name, { label, scope, kind, fits }]) => html`<${Button} key=${name} scope=${scope} kind=${kind}
      disabled=${rows.some(fits) ? false : 'no selected execution is in a state for this'} onClick=${() => setAsked(name)}>${label} …<//>`)}
    <span class="grow"></span><button class="btn quiet" onClick=${onClear}>Clear</button>
    ${asked && html`<${Preview} name=${asked} rows=${rows} onClose=${() => setAsked(null)} onDone=${() => { setAsked(null); onDone(); }} />`}
  </div>`;
}

function Preview({ name, rows, onClose, onDone }) {
  const { label, scope, kind, fits, not, send, flowd } = KINDS[name];
  const [progress, setProgress] = useState(null);
  const some = rows.filter(fits);
  const others = rows.length - some.length;
  const run = async () => {
    const left = [...some];
    const failed = [];
    let count = 0;
    setProgress({ count, failed });
    const work = async () => {
      for (let row = left.shift(); row; row = left.shift()) {
        try {
          await send(row.execution_id);
          count += 1;
        } catch (error) {
          failed.push({ row, error });
        }
        setProgress({ count, failed: [...failed] });
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    if (count) notify(`${label}: ${plural(count, 'execution')} done`);
    if (!failed.length) onDone();
  };
  const isOver = progress && progress.count + progress.failed.length === some.length;
  return html`<${Dialog} title=${`${label} ${plural(some.length, 'execution')}?`} onClose=${isOver ? onDone : onClose}>
    <div class="dialog-body">
      <table class="plain"><tbody>${some.slice(0, SHOWN).map(row => html`<tr key=${row.execution_id}><td><${State} value=${row.status} /></td><td><${Name} value=${row.name} /></td><td class="mono">${row.execution_id}</td></tr>`)}</tbody></table>
      ${some.length > SHOWN && html`<p class="soft">and ${number(some.length - SHOWN)} more</p>`}
      ${others > 0 && html`<p class="soft">${plural(others, 'selected execution')} ${not}, and ${others === 1 ? 'is' : 'are'} left as ${others === 1 ? 'it is' : 'they are'}.</p>`}
      ${progress && html`<p role="status">${number(progress.count)} of ${number(some.length)} done</p>`}
      ${progress?.failed.length > 0 && html`<${Failure} compact error=${new ApiError(0, { detail: `${plural(progress.failed.length, 'execution')} refused it`, errors: progress.failed.slice(0, SHOWN).map(({ row, error }) => ({ path: row.execution_id, message: error.message })) })} />`}
    </div>
    <footer><${Copy} text=${some.map(row => flowd(row.execution_id)).join('\n')} label="Copy as flowd" />
      <span class="grow"></span>
      <button class="btn" onClick=${isOver ? onDone : onClose}>${isOver ? 'Close' : 'Keep'}</button>
      ${!isOver && html`<${Button} scope=${scope} kind=${kind || 'primary'} disabled=${Boolean(progress)} onClick=${run}>${label} ${number(some.length)}<//>`}
    </footer>
  <//>`;
}
