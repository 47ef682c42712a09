// One saved definition: its last executions as a grid, a form to run it, its versions and what differs, its schedules.
import { html, useEffect, useState } from '../lib.js';
import { api } from '../api.js';
import { useResource } from '../live.js';
import { usePages } from '../lists.js';
import { Link, navigate, setQuery, useTitle } from '../router.js';
import { diffLines, hunks } from '../diff.js';
import { shellWord, visibleText } from '../format.js';
import { SchemaForm, beginWith, readForm } from '../form.js';
import { Action, Button, CopyAs, Failure, Field, Json, Loaded, Name, Tabs, Time, duration, notify, number, plural } from '../ui.js';
import { DryGraph } from './dry_graph.js';
import { Grid } from './grid.js';
import { Standing, at, rule } from './schedules.js';

const TABS = [['executions', 'Executions'], ['run', 'Run'], ['graph', 'Graph'], ['versions', 'Versions'], ['schedules', 'Schedules'], ['definition', 'Definition']];

/** All of them, as the list counts them: those of `finally` as well. */
const nodesOf = ({ dag }) => (dag?.nodes?.length ?? 0) + (dag?.finally?.length ?? 0);

export default function Definition({ params: { name, tab = 'executions' }, query }) {
  useTitle(name);
  const path = `definitions/${encodeURIComponent(name)}`;
  const saved = useResource(path, { query: { version: query.version } });
  const own = { executions: Executions, run: Run, graph: DryGraph, versions: Versions, schedules: Schedules, definition: Written }[tab] ?? Executions;
  return html`<div class="page">
    <div class="toolbar"><h1><${Link} to="definitions">Definitions<//> <span class="faint">/</span> <${Name} value=${name} /></h1>
      ${saved.data && html`<span class="soft">version ${saved.data.version}${saved.data.version === saved.data.latest ? '' : ` of ${saved.data.latest}`}, ${plural(nodesOf(saved.data.definition), 'node')}, saved <${Time} ms=${saved.data.saved_ms} relative /></span>`}
      <span class="grow"></span>
      <${Button} kind="primary" scope="trigger" onClick=${() => navigate(`${path}/run`, { query: { version: query.version } })}>Run …<//>
      <${Action} label="Delete" scope="admin" kind="danger" ask=${html`<p>Deletes <${Name} value=${name} /> with all its versions. Its executions stay.</p>`} confirm="Delete 1 definition" run=${() => api.del(path)} done="Definition deleted" onDone=${() => navigate('definitions')}
        flowd=${`flowd definitions rm ${name}`} request=${{ method: 'DELETE', path }} />
    </div>
    <${Tabs} label="Parts of this definition" current=${tab} tabs=${TABS.map(([id, text]) => ({ id, text, to: `${path}/${id}`, query: { version: query.version } }))} />
    <${Loaded} of=${saved}>${data => html`<${own} name=${name} path=${path} saved=${data} query=${query} />`}<//>
  </div>`;
}

function Executions({ saved }) {
  const { name } = saved.definition;
  const stats = useResource('workflows/stats', { query: { name }, everyMs: 10_000 });
  return html`${stats.data?.newest?.duration_ms && html`<${Durations} ...${stats.data.newest} />`}<${Grid} workflow=${name} />`;
}

/** How long the newest took that completed, and how many did. */
function Durations({ count, status, duration_ms: took }) {
  const tiles = [['median', took.p50], ['90th percentile', took.p90], ['99th percentile', took.p99], ['longest', took.max]];
  return html`<div class="tiles five" role="group" aria-label="Durations">
    <div class="tile"><span class="figure num">${number(status.COMPLETED ?? 0)}</span><span class="soft">of the newest ${number(count)} completed</span></div>
    ${tiles.map(([words, ms]) => html`<div class="tile" key=${words}><span class="figure num">${duration(ms)}</span><span class="soft">${words}</span></div>`)}
  </div>`;
}

const inputWords = input => Object.entries(input ?? {})
  .map(([key, value]) => ` --input ${shellWord(`${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`)}`).join('');

function Run({ name, path, saved, query }) {
  const schema = saved.definition.input_schema;
  const initial = saved.definition.input ?? {};
  const hasForm = schema?.properties && Object.keys(schema.properties).length > 0;
  const [typed, setTyped] = useState(() => beginWith(schema, initial));
  const [text, setText] = useState(() => (hasForm ? '' : JSON.stringify(initial, null, 2)));
  const [error, setError] = useState(null);
  let input = null;
  let wrong = {};
  if (hasForm) ({ value: input, wrong } = readForm(schema, typed));
  else {
    try {
      input = JSON.parse(text || '{}');
    } catch (cause) {
      wrong = { input: cause.message };
    }
  }
  const isWrong = Object.keys(wrong).length > 0;
  const body = { input, ...(query.version && { version: Number(query.version) }) };
  const run = async () => {
    setError(null);
    try {
      const { execution_id: id } = await api.post(`${path}/run`, body);
      notify(`${name} runs.`);
      navigate(`executions/${id}`);
    } catch (cause) {
      setError(cause);
    }
  };
  return html`<form class="stack narrow" onSubmit=${event => { event.preventDefault(); if (!isWrong) run(); }}>
    ${hasForm
      ? html`<${SchemaForm} schema=${schema} typed=${typed} onTyped=${setTyped} wrong=${wrong} />`
      : html`<${Field} label="Input" hint="This definition has no schema of its input: any JSON object is taken." error=${wrong.input}>${id => html`<textarea id=${id} class="mono" rows="10" spellcheck=${false} value=${text} onInput=${event => setText(event.target.value)}></textarea>`}<//>`}
    <${Failure} error=${error} compact />
    <div class="row"><${Button} kind="primary" scope="trigger" type="button" disabled=${isWrong ? 'some fields are not filled in as they should be' : false} onClick=${run}>Run version ${saved.version}<//>
      <${CopyAs} flowd=${`flowd run ${name}${inputWords(input)}`} request=${{ method: 'POST', path: `${path}/run`, body }} /></div>
  </form>`;
}

function Versions({ path, saved, query }) {
  const list = usePages(`${path}/versions`, 'versions');
  const to = Number(query.to) || saved.latest;
  const from = Number(query.from) || Math.max(1, to - 1);
  return html`<div class="split versions">
    <table class="plain"><thead><tr><th>Version</th><th>Saved</th><th class="num">Nodes</th><th>From</th><th>To</th></tr></thead>
      <tbody>${list.rows.map(one => html`<tr key=${one.version}><td><${Link} to=${`${path}/definition`} query=${{ version: one.version }}>${number(one.version)}<//></td><td><${Time} ms=${one.saved_ms} /></td><td class="num">${number(one.nodes)}</td>
        <td><label class="target"><input type="radio" name="from" aria-label=${`Compare from version ${one.version}`} checked=${one.version === from} onChange=${() => setQuery({ from: one.version }, { replace: true })} /></label></td>
        <td><label class="target"><input type="radio" name="to" aria-label=${`Compare to version ${one.version}`} checked=${one.version === to} onChange=${() => setQuery({ to: one.version }, { replace: true })} /></label></td></tr>`)}</tbody></table>
    ${list.next && html`<button class="btn" onClick=${list.more}>More</button>`}
    <${Diff} path=${path} from=${from} to=${to} />
  </div>`;
}

function Diff({ path, from, to }) {
  const before = useResource(path, { query: { version: from } });
  const after = useResource(path, { query: { version: to } });
  const error = before.error ?? after.error;
  if (error) return html`<${Failure} error=${error} compact />`;
  if (!before.data || !after.data) return html`<p class="soft">Loading …</p>`;
  const text = one => JSON.stringify(one.definition, null, 2);
  const lines = hunks(diffLines(text(before.data), text(after.data)));
  return html`<div><h2>${from} → ${to}</h2>${lines.length
    ? html`<pre class="diff" tabindex="0" aria-label=${`What differs between version ${from} and ${to}`}>${lines.map((line, index) => (line === null
      ? html`<span key=${index} class="faint">  …</span>`
      : html`<span key=${index} class=${{ '-': 'less', '+': 'more', ' ': '' }[line[0]]}>${line[0]} ${visibleText(line[1])}</span>`))}</pre>`
    : html`<p class="soft">Nothing differs.</p>`}</div>`;
}

function Schedules({ name }) {
  const list = usePages('schedules', 'schedules');
  const own = list.rows.filter(one => one.workflow === name);
  useEffect(() => { if (list.next) list.more(); }, [list.next]);
  if (list.error) return html`<${Failure} error=${list.error} retry=${list.reload} />`;
  if (!own.length) return html`<p class="soft">${list.loading ? 'Loading …' : 'No schedule runs it.'}</p>`;
  return html`<table class="plain"><thead><tr><th>Schedule</th><th>State</th><th>When</th><th>Next</th></tr></thead><tbody>${own.map(row => html`<tr key=${row.name}>
    <th scope="row"><${Link} to=${`schedules/${encodeURIComponent(row.name)}`}><${Name} value=${row.name} /><//></th><td><${Standing} row=${row} /></td><td class="mono">${rule(row)}</td><td><${Time} ms=${at(row.next)} /></td></tr>`)}</tbody></table>`;
}

function Written({ saved }) {
  return html`<${Json} value=${saved.definition} label="Copy this definition" />`;
}
