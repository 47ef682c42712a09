// Executions: a list of any length whose rows stay where they are, filters in the address, and what is done to many.
import { html, useEffect, useMemo, useRef, useState } from '../lib.js';
import { api } from '../api.js';
import { useSummaries } from '../summaries.js';
import { BELL, useLive } from '../live.js';
import { useKeys } from '../keys.js';
import { Link, navigate, setQuery, useTitle } from '../router.js';
import { EXECUTION_STATES, isTerminal } from '../states.js';
import { VirtualTable } from '../table.js';
import { Duration, Empty, Failure, Name, State, Time, announce, number, plural } from '../ui.js';
import { Bulk } from './bulk.js';

const PAGE = 100;
const PEEK = 50;
const SINCE = [['', 'any time'], ['1h', 'last hour'], ['24h', 'last 24 h'], ['7d', 'last 7 days'], ['30d', 'last 30 days']];
const HOURS = { '1h': 1, '24h': 24, '7d': 168, '30d': 720 };

function useFilters(query) {
  const { status = '', name = '', label = '', since = '' } = query;
  return useMemo(() => {
    const labels = label.split(/[\s,]+/).filter(Boolean);
    const after = HOURS[since] ? Date.now() - HOURS[since] * 3_600_000 : undefined;
    return { status: status || undefined, name: name || undefined, label: labels.join(',') || undefined, submitted_after: after };
  }, [status, name, label, since]);
}

/** The rows that were loaded, in their order; each page keeps its cursor, to be asked for again in place. */
function useExecutions(filters) {
  const [state, setState] = useState({ rows: [], next: null, loading: true, error: null, fresh: [] });
  const self = useRef({}).current;
  self.state = state;

  const load = async isFirst => {
    if (self.busy) return;
    const controller = new AbortController();
    self.busy = controller;
    setState(before => ({ ...before, loading: true, error: null }));
    try {
      const cursor = isFirst ? undefined : self.state.next;
      const page = await api.get('workflows', { query: { ...filters, limit: PAGE, cursor }, signal: controller.signal });
      setState(before => {
        const known = new Set(isFirst ? [] : before.rows.map(row => row.execution_id));
        const added = page.workflows.filter(row => !known.has(row.execution_id));
        return { ...before, rows: isFirst ? added : [...before.rows, ...added], fresh: isFirst ? [] : before.fresh, next: page.next_cursor, loading: false };
      });
    } catch (error) {
      if (!controller.signal.aborted) setState(before => ({ ...before, loading: false, error }));
    }
    if (self.busy === controller) self.busy = null;
  };

  useEffect(() => {
    setState({ rows: [], next: null, loading: true, error: null, fresh: [] });
    self.busy = null;
    load(true);
    return () => { self.busy?.abort(); self.busy = null; self.peeking?.abort(); self.peeking = null; };
  }, [filters]);

  // What is new waits in `fresh`; what is known changes where it stands.
  const refresh = async () => {
    if (self.peeking || self.busy) {
      self.again = true;
      return;
    }
    const controller = new AbortController();
    self.peeking = controller;
    try {
      const ids = new Set(self.visible ?? []);
      const page = await api.get('workflows', { query: { ...filters, limit: PEEK }, signal: controller.signal });
      const found = new Map(page.workflows.map(row => [row.execution_id, row]));
      const stale = self.state.rows.filter(row => ids.has(row.execution_id) && !found.has(row.execution_id) && !isTerminal(row.status)).slice(0, PEEK);
      await Promise.all(stale.map(async row => {
        try {
          const { status } = await api.get(`workflows/${row.execution_id}`, { signal: controller.signal });
          found.set(row.execution_id, { ...row, status });
        } catch (error) {
          if (error.status === 404) found.set(row.execution_id, { ...row, isDeleted: true });
        }
      }));
      setState(before => {
        const newest = before.rows[0]?.execution_id ?? '';
        return {
          ...before,
          rows: before.rows.map(row => found.get(row.execution_id) ?? row),
          fresh: page.workflows.filter(row => row.execution_id > newest),
        };
      });
    } catch {
      // The next ring asks again; what is shown stays.
    }
    self.peeking = null;
    if (self.again && !controller.signal.aborted) {
      self.again = false;
      refresh();
    }
  };

  return {
    ...state,
    more: () => { if (self.state.next && !self.state.error) load(false); },
    reload: () => load(true),
    retry: () => load(self.state.rows.length === 0),
    refresh,
    see: rows => { self.visible = rows.map(row => row.execution_id); },
  };
}

export default function Executions({ query }) {
  useTitle('Executions');
  const filters = useFilters(query);
  const list = useExecutions(filters);
  const [details, see] = useSummaries();
  const [selected, setSelected] = useState(new Set());
  useLive(BELL, () => list.refresh());
  useEffect(() => setSelected(new Set()), [filters]);
  useEffect(() => {
    if (!list.loading) announce(`${plural(list.rows.length, 'execution')}${list.next ? ' and more' : ''}`);
  }, [list.loading]);
  useKeys({ Escape: ['leave the selection', () => selected.size > 0 && setSelected(new Set())] });
  const chosen = list.rows.filter(row => selected.has(row.execution_id));
  const isFiltered = Boolean(query.status || query.name || query.label || query.since);

  return html`<div class="page fill">
    <div class="toolbar">
      <h1>Executions</h1>
      <${Filters} query=${query} />
    </div>
    ${selected.size > 0 && html`<${Bulk} rows=${chosen} filter=${isFiltered && list.next && selected.size === list.rows.length ? actionFilter(filters) : null} onDone=${() => { setSelected(new Set()); list.reload(); }} onClear=${() => setSelected(new Set())} />`}
    <div class="pill-place">${list.fresh.length > 0 && html`<button class="pill" onClick=${() => { list.reload(); document.querySelector('.table-scroll').scrollTop = 0; }}>
      ${list.fresh.length >= PEEK ? `${PEEK}+` : number(list.fresh.length)} new</button>`}</div>
    <${VirtualTable} label="Executions" rows=${list.rows} rowId=${row => row.execution_id} columns=${columnsOf(details)}
      rowClass=${row => (row.isDeleted ? 'gone' : '')} selected=${selected} onSelect=${setSelected}
      onOpen=${row => navigate(`executions/${row.execution_id}`)} onEnd=${list.more} onSee=${rows => { list.see(rows); see(rows); }}
      total=${list.next ? -1 : list.rows.length + 1}
      footer=${html`<${Foot} list=${list} isFiltered=${isFiltered} />`} />
  </div>`;
}

/** The filters as the body of an action has them. */
const actionFilter = ({ status, name, label, submitted_after: since }) => ({
  ...(status && { status: status.split(',') }), ...(name && { name }), ...(label && { label: label.split(',') }), ...(since && { since }),
});

const columnsOf = details => [
  { id: 'status', head: 'State', cell: row => html`<${State} value=${row.isDeleted ? 'DELETED' : row.status} word=${row.isDeleted ? 'Deleted' : undefined} />` },
  { id: 'name', head: 'Name', cell: row => html`<span class="named"><${Name} value=${row.name} /><${Origin} of=${details.get(row.execution_id)} /></span>` },
  { id: 'id', head: 'Execution', cell: row => html`<${Link} to=${`executions/${row.execution_id}`} class="mono">${row.execution_id}<//>` },
  { id: 'nodes', head: 'Nodes', cls: 'num', cell: row => nodesOf(row, details.get(row.execution_id)) },
  { id: 'time', head: 'Submitted', cell: row => html`<${Time} ms=${row.submitted_ms} />` },
  { id: 'took', head: 'Took', cls: 'num', cell: row => (row.triggered_ms ? html`<${Duration} ms=${row.duration_ms} since=${row.triggered_ms} until=${row.finished_ms} />` : html`<span class="faint">–</span>`) },
];

/** How many have ended, and all, as `flowd ls` says it. */
function nodesOf({ nodes, status }, details) {
  const done = { COMPLETED: nodes, PENDING: 0 }[status] ?? details?.done;
  return done === undefined || nodes === null ? number(nodes) : `${number(done)}/${number(nodes)}`;
}

/** What has started it, and its labels, where there is room. */
function Origin({ of }) {
  const words = [of?.version && `v${of.version}`, of?.schedule, ...Object.entries(of?.labels ?? {}).map(([name, value]) => `${name}:${value}`)].filter(Boolean);
  return words.length > 0 && html`<span class="origin soft"><${Name} value=${words.join(' · ')} /></span>`;
}

function Foot({ list, isFiltered }) {
  if (list.error) return html`<${Failure} error=${list.error} retry=${list.retry} />`;
  if (list.loading) return html`<p class="loading soft">Loading …</p>`;
  if (list.rows.length) return list.next ? null : html`<p class="soft end">${plural(list.rows.length, 'execution')}, no more</p>`;
  if (isFiltered) return html`<${Empty} title="No execution matches these filters."><button class="btn" onClick=${() => navigate('executions')}>Clear the filters</button><//>`;
  return html`<${Empty} title="No executions yet."><code>flowd run workflow.yaml</code> runs one, and so does <${Link} to="submit">Submit<//>.<//>`;
}

function Filters({ query }) {
  const chosen = new Set((query.status ?? '').split(',').filter(Boolean));
  const toggle = state => {
    if (!chosen.delete(state)) chosen.add(state);
    setQuery({ status: EXECUTION_STATES.filter(one => chosen.has(one)).join(',') || null });
  };
  return html`<form class="filters" role="search" aria-label="Executions" onSubmit=${event => event.preventDefault()}>
    <${Typed} name="name" label="Name" placeholder="name, or begin*" value=${query.name} search />
    <${Typed} name="label" label="Labels" placeholder="team:x" value=${query.label} />
    <label><span class="visually-hidden">Submitted</span><select value=${query.since ?? ''} onChange=${event => setQuery({ since: event.target.value || null })}>
      ${SINCE.map(([value, word]) => html`<option key=${value} value=${value}>${word}</option>`)}</select></label>
    <div class="chips" role="group" aria-label="State">${EXECUTION_STATES.map(state => html`<button type="button" key=${state} class="chip" aria-pressed=${String(chosen.has(state))} onClick=${() => toggle(state)}><${State} value=${state} /></button>`)}</div>
  </form>`;
}

const TYPED_MS = 300;

function Typed({ name, label, placeholder, value = '', search }) {
  const [text, setText] = useState(value);
  const timer = useRef(null);
  useEffect(() => setText(value), [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const change = event => {
    setText(event.target.value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setQuery({ [name]: event.target.value.trim() || null }, { replace: true }), TYPED_MS);
  };
  return html`<label><span class="visually-hidden">${label}</span><input type="search" autocomplete="off" spellcheck=${false} data-search=${search} placeholder=${placeholder} value=${text} onInput=${change} /></label>`;
}
