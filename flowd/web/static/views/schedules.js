// Schedules: what runs by the clock, when next, and what became of it.
import { html } from '../lib.js';
import { api } from '../api.js';
import { usePages } from '../lists.js';
import { Link, navigate, useTitle } from '../router.js';
import { VirtualTable } from '../table.js';
import { Action, Empty, Failure, Name, State, Time, duration, notify, number } from '../ui.js';

export default function Schedules() {
  useTitle('Schedules');
  const list = usePages('schedules', 'schedules', { everyMs: 10_000 });
  return html`<div class="page fill five-lines">
    <div class="toolbar"><h1>Schedules</h1></div>
    <${VirtualTable} label="Schedules" rows=${list.rows} rowId=${row => row.name} columns=${columns(list.reload)} onEnd=${list.more}
      onOpen=${row => navigate(`schedules/${encodeURIComponent(row.name)}`)}
      footer=${list.error ? html`<${Failure} error=${list.error} retry=${list.reload} />` : !list.loading && !list.rows.length && html`<${Empty} title="No schedules."><code>flowd schedules put nightly schedule.yaml</code> makes one.<//>`} />
  </div>`;
}

export const rule = row => (row.cron ? row.cron : row.every_s ? `every ${duration(row.every_s * 1000)}` : '–');
export const at = text => (text ? Date.parse(text) : null);

export function Standing({ row }) {
  if (row.error && !row.cron && !row.every_s) return html`<${State} value="CORRUPT" />`;
  if (row.paused) return html`<${State} value="PAUSED" />`;
  if (row.error) return html`<${State} value="FAILED" word="Cannot start" />`;
  if (row.queued) return html`<${State} value="QUEUED" word="One waits" />`;
  return row.running?.length ? html`<${State} value="RUNNING" />` : html`<${State} value="WAITING" word="On time" />`;
}

const columns = reload => [
  { id: 'status', head: 'State', width: '106px', cell: row => html`<${Standing} row=${row} />` },
  { id: 'name', head: 'Name', cell: row => html`<${Link} to=${`schedules/${encodeURIComponent(row.name)}`}><${Name} value=${row.name} /><//>` },
  { id: 'workflow', head: 'Runs', cls: 'named-column whole-line', cell: row => (row.workflow ? html`<${Name} value=${`${row.workflow}@${row.version}`} />` : '–') },
  { id: 'rule', head: 'When', cls: 'whole-line', width: '212px', cell: row => html`<span class="mono">${rule(row)}</span>${row.cron && html` <span class="soft">${row.timezone}</span>`}` },
  { id: 'next', head: 'Next', cls: 'named-column', width: '124px', cell: row => (row.next ? html`<${Time} ms=${at(row.next)} relative />` : html`<span class="faint">–</span>`) },
  { id: 'last', head: 'Last', cls: 'named-column', width: '104px', cell: row => (row.last ? html`<${Link} to=${`executions/${row.last.execution_id}`}><${Time} ms=${at(row.last.scheduled_at)} relative /><//>` : html`<span class="faint">–</span>`) },
  { id: 'missed', head: 'Missed', cls: 'num', width: '70px', cell: row => html`<span class=${row.missed ? '' : 'faint'}>${number(row.missed)}</span>` },
  { id: 'act', head: 'Actions', cls: 'actions whole-line', width: '176px', cell: row => html`<${ScheduleActions} row=${row} reload=${reload} kind="quiet" />` },
];

export function ScheduleActions({ row, reload, kind = '' }) {
  const path = `schedules/${encodeURIComponent(row.name)}`;
  const isDamaged = row.workflow ? false : 'it is damaged';
  return html`<${Action} label="Run now" kind=${kind} disabled=${isDamaged} run=${() => api.post(`${path}/run`)}
      onDone=${answer => { notify(`${row.name} runs.`, { to: `executions/${answer.execution_id}`, label: 'Look at it' }); reload(); }} />
    ${row.paused
      ? html`<${Action} key="r" label="Resume" kind=${kind} disabled=${isDamaged} run=${() => api.post(`${path}/resume`)} done=${`${row.name} goes on`} onDone=${reload} />`
      : html`<${Action} key="p" label="Pause" kind=${kind} disabled=${isDamaged} run=${() => api.post(`${path}/pause`)} done=${`${row.name} is held up`} onDone=${reload} />`}`;
}
