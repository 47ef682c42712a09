// One schedule: what it says, its next times, what it has done.
import { html } from '../lib.js';
import { api } from '../api.js';
import { useResource } from '../live.js';
import { Link, navigate, useTitle } from '../router.js';
import { Action, CopyAs, Json, Linked, Loaded, Name, Time, number } from '../ui.js';
import { ScheduleActions, Standing, at, rule } from './schedules.js';

export default function Schedule({ params: { name } }) {
  useTitle(name);
  const path = `schedules/${encodeURIComponent(name)}`;
  const schedule = useResource(path, { everyMs: 10_000 });
  const next = useResource(`${path}/next`, { query: { count: 10 } });
  return html`<div class="page">
    <div class="toolbar"><h1><${Link} to="schedules">Schedules<//> <span class="faint">/</span> <${Name} value=${name} /></h1>
      ${schedule.data && html`<${Standing} row=${schedule.data} /><span class="grow"></span><${ScheduleActions} row=${schedule.data} reload=${schedule.reload} />
        <${Action} label="Delete" scope="admin" kind="danger" ask=${html`<p>Deletes this schedule. What it has started goes on.</p>`} confirm="Delete 1 schedule" run=${() => api.del(path)} done="Schedule deleted" onDone=${() => navigate('schedules')}
          flowd=${`flowd schedules rm ${name}`} request=${{ method: 'DELETE', path }} />`}
    </div>
    <${Loaded} of=${schedule}>${row => html`<div class="columns">
      <section class="card"><h2>What it says</h2><table class="plain says"><tbody>
        <tr><th scope="row">Runs</th><td><${Link} to=${`definitions/${encodeURIComponent(row.workflow)}`}><${Name} value=${`${row.workflow}@${row.version}`} /><//></td></tr>
        <tr><th scope="row">When</th><td><span class="mono">${rule(row)}</span> <span class="soft">${row.timezone}</span></td></tr>
        <tr><th scope="row">While one runs</th><td>${row.overlap}</td></tr>
        <tr><th scope="row">After an outage</th><td>${row.catch_up} <span class="soft">within ${number(row.catch_up_window_s)} s</span></td></tr>
        <tr><th scope="row">Input</th><td>${Object.keys(row.input ?? {}).length ? html`<${Json} value=${row.input} />` : '–'}</td></tr>
      </tbody></table></section>
      <section class="card"><h2>What it has done</h2><table class="plain says"><tbody>
        <tr><th scope="row">Started</th><td class="num">${number(row.fired)}</td></tr>
        <tr><th scope="row">Missed</th><td class="num">${number(row.missed)}</td></tr>
        <tr><th scope="row">Skipped</th><td class="num">${number(row.skipped)}</td></tr>
        <tr><th scope="row">Last</th><td>${row.last ? html`<${Link} to=${`executions/${row.last.execution_id}`}><${Time} ms=${at(row.last.scheduled_at)} /><//>` : '–'}</td></tr>
        <tr><th scope="row">Running</th><td>${row.running.length ? row.running.map(id => html`<${Link} key=${id} class="mono" to=${`executions/${id}`}>${id}<//> `) : '–'}</td></tr>
        ${row.error && html`<tr><th scope="row">Trouble</th><td class="wrong"><${Linked} text=${row.error} /></td></tr>`}
      </tbody></table></section>
      <section class="card"><div class="row"><h2>Its next times</h2><span class="grow"></span><${CopyAs} flowd=${`flowd schedules next ${name}`} request=${{ method: 'GET', path: `${path}/next` }} /></div>
        ${row.paused ? html`<p class="soft">None while it is paused.</p>` : html`<ol class="listed">${(next.data?.next ?? []).map(time => html`<li key=${time}><${Time} ms=${at(time)} /> <span class="faint right"><${Time} ms=${at(time)} relative /></span></li>`)}</ol>`}
      </section>
    </div>`}<//>
  </div>`;
}
