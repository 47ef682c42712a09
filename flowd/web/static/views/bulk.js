// What is done to several executions at once: first how many it is, then all in one request.
import { html, useEffect, useState } from '../lib.js';
import { ApiError, api } from '../api.js';
import { notify } from '../notices.js';
import { isTerminal } from '../states.js';
import { Button, CopyAs, Dialog, Failure, Name, State, number, plural } from '../ui.js';

const AT_ONCE = 500;
const SHOWN = 8;

const KINDS = {
  cancel: { label: 'Cancel', scope: 'trigger', kind: '', fits: row => !isTerminal(row.status), flowd: 'cancel' },
  rerun: { label: 'Rerun', scope: 'trigger', kind: '', fits: row => row.status === 'FAILED' || row.status === 'CANCELLED', flowd: 'rerun' },
  delete: { label: 'Delete', scope: 'admin', kind: 'danger', fits: row => row.status !== 'RUNNING', flowd: 'rm' },
};

/** `filter`: what the list shows, where not all of it is loaded; null where all is. */
export function Bulk({ rows, filter, onDone, onClear }) {
  const [asked, setAsked] = useState(null);
  const [isAll, setAll] = useState(false);
  const every = isAll && filter;
  return html`<div class="bulk" role="region" aria-label="Selected executions">
    <strong class="num">${every ? 'All that match these filters' : `${plural(rows.length, 'execution')} selected`}</strong>
    ${filter && !isAll && html`<button class="btn quiet" onClick=${() => setAll(true)}>All that match these filters</button>`}
    ${Object.entries(KINDS).map(([name, { label, scope, kind, fits }]) => html`<${Button} key=${name} scope=${scope} kind=${kind}
      disabled=${every || rows.some(fits) ? false : 'no selected execution is in a state for this'} onClick=${() => setAsked(name)}>${label} …<//>`)}
    <span class="grow"></span><button class="btn quiet" onClick=${onClear}>Clear</button>
    ${asked && html`<${Question} name=${asked} chosen=${every ? { filter } : { ids: rows.filter(KINDS[asked].fits).map(row => row.execution_id) }} others=${every ? 0 : rows.filter(row => !KINDS[asked].fits(row)).length}
      onClose=${() => setAsked(null)} onDone=${() => { setAsked(null); onDone(); }} />`}
  </div>`;
}

const act = body => api.post('workflows/actions', body);

/** {count, more, results} of all of them, some hundred at a time. */
async function actOnAll(name, chosen) {
  if (chosen.filter) return act({ action: name, ...chosen });
  const found = { count: 0, more: false, results: [] };
  for (let at = 0; at < chosen.ids.length; at += AT_ONCE) {
    const answer = await act({ action: name, ids: chosen.ids.slice(at, at + AT_ONCE) });
    found.count += answer.count;
    found.results.push(...answer.results);
  }
  return found;
}

function usePreview(name, chosen) {
  const [state, setState] = useState({});
  const key = JSON.stringify([name, chosen]);
  useEffect(() => {
    let isWanted = true;
    const some = chosen.ids ? { ids: chosen.ids.slice(0, 1000) } : chosen;
    act({ action: name, ...some, preview: true }).then(
      preview => { if (isWanted) setState({ preview }); },
      error => { if (isWanted) setState({ error }); },
    );
    return () => { isWanted = false; };
  }, [key]);
  return state;
}

function Question({ name, chosen, others, onClose, onDone }) {
  const { label, scope, kind, flowd } = KINDS[name];
  const { preview, error } = usePreview(name, chosen);
  const [state, setState] = useState({});
  const count = chosen.ids ? chosen.ids.length : preview?.count;
  const run = async () => {
    setState({ isBusy: true });
    try {
      const { results } = await actOnAll(name, chosen);
      const refused = results.filter(one => one.outcome === 'refused');
      const done = results.length - refused.length;
      if (done) notify(`${label}: ${plural(done, 'execution')} done`);
      if (refused.length) setState({ refused });
      else onDone();
    } catch (cause) {
      setState({ error: cause });
    }
  };
  return html`<${Dialog} title=${count === undefined ? label : `${label} ${plural(count, 'execution')}?`} onClose=${state.refused ? onDone : onClose}>
    <div class="dialog-body" tabindex="0">
      <${Failure} error=${error ?? state.error} compact />
      ${preview && html`<table class="plain"><tbody>${preview.sample.slice(0, SHOWN).map(row => html`<tr key=${row.execution_id}><td><${State} value=${row.status} /></td><td><${Name} value=${row.name} /></td><td class="mono">${row.execution_id}</td></tr>`)}</tbody></table>
        ${count > Math.min(SHOWN, preview.sample.length) && html`<p class="soft">and ${number(count - Math.min(SHOWN, preview.sample.length))} more</p>`}
        ${preview.more && html`<p class="soft">More match than one request acts on: do it again afterwards.</p>`}`}
      ${others > 0 && html`<p class="soft">${plural(others, 'selected execution')} left as ${others === 1 ? 'it is' : 'they are'}: not in a state for this.</p>`}
      ${state.refused && html`<${Failure} compact error=${new ApiError(0, { detail: `${plural(state.refused.length, 'execution')} refused it`, errors: state.refused.slice(0, SHOWN).map(one => ({ path: one.execution_id, message: one.message })) })} />`}
    </div>
    <footer><${CopyAs} flowd=${chosen.ids?.map(id => `flowd ${flowd} ${id}`).join('\n')} request=${{ method: 'POST', path: 'workflows/actions', body: { action: name, ...chosen } }} />
      <span class="grow"></span>
      <button class="btn" onClick=${state.refused ? onDone : onClose}>${state.refused ? 'Close' : 'Keep'}</button>
      ${!state.refused && html`<${Button} scope=${scope} kind=${kind || 'primary'} disabled=${state.isBusy || count === undefined || count === 0} onClick=${run}>${label} ${count === undefined ? '' : number(count)}<//>`}
    </footer>
  <//>`;
}
