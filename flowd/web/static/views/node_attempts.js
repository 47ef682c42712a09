// Every attempt of a node, the newest first: when, where, how it ended.
import { html, useEffect, useState } from '../lib.js';
import { useResource } from '../live.js';
import { Duration, Linked, Loaded, Name, State, Time } from '../ui.js';
import { Log } from './log_pane.js';

/** The newest stands as its node does; one before it has failed, or its worker died. */
function stateOfAttempt(one, newest) {
  if (one.attempt === newest.attempt) return newest.state;
  return one.error || !one.finished_ms ? 'FAILED' : 'COMPLETED';
}

export function Attempts({ execution, node, newest }) {
  const attempts = useResource(`workflows/${execution.id}/nodes/${encodeURIComponent(node)}/attempts`, { keep: true });
  const [open, setOpen] = useState(null);
  useEffect(() => { if (execution.rings) attempts.reload(); }, [newest.attempt, newest.state]);
  return html`<${Loaded} of=${attempts}>${data => (data.attempts.length
    ? html`<ol class="attempts">${[...data.attempts].reverse().map(one => html`<li key=${one.attempt}>
      <div class="row"><b class="num">${one.attempt}</b><${State} value=${stateOfAttempt(one, newest)} />
        <span class="grow"></span><span class="soft"><${Duration} ms=${one.duration_ms} /></span></div>
      <p class="soft"><${Time} ms=${one.started_ms ?? one.queued_ms} />${one.worker && html` on <${Name} value=${one.worker} mono />`}</p>
      ${one.error && html`<p class="error"><${Linked} text=${one.error} /></p>`}
      ${one.has_log && html`<button class="btn quiet" aria-expanded=${open === one.attempt} onClick=${() => setOpen(open === one.attempt ? null : one.attempt)}>${open === one.attempt ? 'Hide the log' : 'Log'}</button>`}
      ${open === one.attempt && html`<${Log} execution=${execution} node=${node} attempt=${one.attempt} />`}
    </li>`)}</ol>`
    : html`<p class="soft">It has not been attempted.</p>`)}<//>`;
}
