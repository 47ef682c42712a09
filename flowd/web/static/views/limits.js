// Limits: how many nodes run at once, who holds their places, and who waits.
import { html, useEffect, useState } from '../lib.js';
import { api } from '../api.js';
import { useSummaries } from '../summaries.js';
import { useResource } from '../live.js';
import { Link, navigate, useTitle } from '../router.js';
import { VirtualTable } from '../table.js';
import { Action, Button, CopyAs, Dialog, Empty, Failure, Field, Loaded, Name, Time, notify, number, plural } from '../ui.js';

const to = name => `limits/${encodeURIComponent(name)}`;
const rate = row => (row.per_s === null ? '–' : `${number(row.per_s)} a second${row.burst ? `, ${number(row.burst)} together` : ''}`);
const COLUMNS = [
  { id: 'name', head: 'Name', cell: row => html`<${Link} to=${to(row.name)}><${Name} value=${row.name} /><//>` },
  { id: 'max', head: 'Run together', cls: 'num', cell: row => number(row.max) },
  { id: 'rate', head: 'Starts', cell: row => rate(row) },
  { id: 'holding', head: 'Hold a place', cls: 'num', cell: row => number(row.holding) },
  { id: 'waiting', head: 'Wait', cls: 'num', cell: row => html`<span class=${row.waiting ? '' : 'faint'}>${number(row.waiting)}</span>` },
];

export default function Limits({ params: { name } }) {
  return name ? html`<${Limit} name=${name} />` : html`<${List} />`;
}

function List() {
  useTitle('Limits');
  const list = useResource('limits', { everyMs: 5_000 });
  const rows = list.data?.limits ?? [];
  const [isNew, setNew] = useState(false);
  return html`<div class="page fill two-lines">
    <div class="toolbar"><h1>Limits</h1><span class="grow"></span><${Button} scope="trigger" onClick=${() => setNew(true)}>New limit …<//></div>
    <${VirtualTable} label="Limits" rows=${rows} rowId=${row => row.name} columns=${COLUMNS} onOpen=${row => navigate(to(row.name))}
      footer=${list.error ? html`<${Failure} error=${list.error} retry=${list.reload} />` : list.data && !rows.length && html`<${Empty} title="No limits."><code>flowd limits put api --max 5</code> makes one; nodes name it with <code>limit</code>.<//>`} />
    ${isNew && html`<${Change} row=${{ name: '', max: null, per_s: null, burst: null }} onClose=${() => setNew(false)} onDone=${list.reload} />`}
  </div>`;
}

function Limit({ name }) {
  useTitle(name);
  const path = `limits/${encodeURIComponent(name)}`;
  const limit = useResource(path, { everyMs: 3_000 });
  const [isChanging, setChanging] = useState(false);
  const [details, see] = useSummaries();
  const { holders = [], waiters = [] } = limit.data ?? {};
  useEffect(() => see([...holders.slice(0, NAMED_MAX), ...waiters.slice(0, NAMED_MAX)]), [limit.data]);
  return html`<div class="page">
    <div class="toolbar"><h1><${Link} to="limits">Limits<//> <span class="faint">/</span> <${Name} value=${name} /></h1><span class="grow"></span>
      ${limit.data && html`<${Button} scope="trigger" onClick=${() => setChanging(true)}>Change …<//>`}
      <${Action} label="Lift" scope="admin" kind="danger" ask=${html`<p>Lifts this limit: ${plural(limit.data?.waiting ?? 0, 'node')} that ${limit.data?.waiting === 1 ? 'waits starts' : 'wait start'} at once.</p>`} confirm="Lift 1 limit" run=${() => api.del(path)} done="Limit lifted" onDone=${() => navigate('limits')}
        flowd=${`flowd limits rm ${name}`} request=${{ method: 'DELETE', path }} />
    </div>
    <${Loaded} of=${limit}>${row => html`
      <p>${row.max === null ? 'Any number at once' : `At most ${number(row.max)} at once`}${row.per_s === null ? '' : `; starts: ${rate(row)}`}${row.keys.length ? ', each key for itself' : ''}. ${' '}
        <span class="soft">${plural(row.holding, 'node')} ${row.holding === 1 ? 'holds' : 'hold'} a place, ${number(row.waiting)} wait.</span></p>
      ${row.keys.length > 0 && html`<section class="stack"><h2>Keys, the busiest first</h2><div class="scroll" tabindex="0" role="region" aria-label="Keys"><table class="plain"><thead><tr><th>Key</th><th class="num">Hold</th><th class="num">Wait</th></tr></thead>
        <tbody>${row.keys.map(one => html`<tr key=${one.key}><th scope="row"><${Name} value=${one.key} /></th><td class="num">${number(one.holding)}</td><td class="num">${number(one.waiting)}</td></tr>`)}</tbody></table></div></section>`}
      <div class="columns"><${Turns} title="Hold a place" turns=${row.holders} count=${row.holding} details=${details} /><${Turns} title="Wait" turns=${row.waiters} count=${row.waiting} details=${details} /></div>
      ${isChanging && html`<${Change} row=${row} onClose=${() => setChanging(false)} onDone=${limit.reload} />`}
    `}<//>
  </div>`;
}

/** Of so many of each the workflow is named. */
const NAMED_MAX = 20;

function Turns({ title, turns, count, details }) {
  return html`<section class="card"><h2>${title} <span class="badge num">${number(count)}</span></h2>
    ${turns.length ? html`<ul class="listed">${turns.map(one => html`<li key=${`${one.execution_id}/${one.node_id}`}><${Link} to=${`executions/${one.execution_id}`} query=${{ node: one.node_id }}><span class="what">${details.get(one.execution_id) && html`<strong><${Name} value=${details.get(one.execution_id).name} /></strong> `}<${Name} value=${one.node_id} mono /> <span class="soft mono">${one.execution_id}</span>${one.key !== null && html` <${Name} value=${one.key} />`}</span><//><span class="faint right nowrap"><${Time} ms=${one.since_ms} relative /></span></li>`)}</ul>` : html`<p class="soft">Nobody.</p>`}
    ${count > turns.length && html`<p class="soft">and ${number(count - turns.length)} more</p>`}
  </section>`;
}

const FIELDS = [
  ['max', 'Run together', 'how many at the same time; 0 holds everybody'],
  ['per_s', 'Start a second', 'on average'],
  ['burst', 'Start together', 'how many at most, after a pause in which fewer started'],
];

function Change({ row, onClose, onDone }) {
  const [typed, setTyped] = useState(() => ({ name: row.name, ...Object.fromEntries(FIELDS.map(([field]) => [field, row[field] ?? ''])) }));
  const [error, setError] = useState(null);
  const body = Object.fromEntries(FIELDS.filter(([field]) => typed[field] !== '').map(([field]) => [field, Number(typed[field])]));
  const path = `limits/${encodeURIComponent(typed.name)}`;
  const save = async () => {
    try {
      notify((await api.put(path, body)).message);
      onDone();
      onClose();
    } catch (cause) {
      setError(cause);
    }
  };
  const field = (name, label, hint, mode) => html`<${Field} key=${name} label=${label} hint=${hint}>${id => html`<input id=${id} inputmode=${mode} autocomplete="off" value=${typed[name]} onInput=${event => setTyped({ ...typed, [name]: event.target.value.trim() })} />`}<//>`;
  const words = FIELDS.filter(([one]) => one in body).map(([one]) => ` --${one.replace('_', '-')} ${body[one]}`).join('');
  return html`<${Dialog} title=${row.name ? `Change ${row.name}` : 'New limit'} onClose=${onClose}>
    <div class="dialog-body">${!row.name && field('name', 'Name', '', 'text')}${FIELDS.map(([name, label, hint]) => field(name, label, hint, 'decimal'))}<${Failure} error=${error} compact /></div>
    <footer><${CopyAs} flowd=${`flowd limits put ${typed.name}${words}`} request=${{ method: 'PUT', path, body }} /><span class="grow"></span><button class="btn" onClick=${onClose}>Close</button>
      <${Button} kind="primary" scope="trigger" disabled=${typed.name ? false : 'it has no name yet'} onClick=${save}>Save<//></footer>
  <//>`;
}
