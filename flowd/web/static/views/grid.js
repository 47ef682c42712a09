// The last executions of a workflow × its nodes: where it breaks, and since when. Each state is one path of its own shape.
import { html, useEffect, useMemo, useRef, useState } from '../lib.js';
import { api } from '../api.js';
import { useResource } from '../live.js';
import { Link, navigate } from '../router.js';
import { now } from '../settings.js';
import { stateOf } from '../states.js';
import { Empty, Loaded, Name, State, Time, duration, number } from '../ui.js';

const EXECUTIONS = 25;
const NODES_MAX = 200;
const CELL = 18;
const TOP = 44;
const UPSTREAM = 'U';

export function Grid({ workflow }) {
  const list = useResource('workflows', { query: { name: workflow, limit: EXECUTIONS }, everyMs: 10_000 });
  return html`<${Loaded} of=${list}>${data => (data.workflows.length
    ? html`<${Cells} rows=${[...data.workflows].reverse()} />`
    : html`<${Empty} title="It has not run yet." />`)}<//>`;
}

function useStates(rows) {
  const kept = useRef(new Map()).current;
  const [found, setFound] = useState({ nodes: [], cells: new Map() });
  const key = rows.map(row => row.execution_id + row.status).join();
  useEffect(() => {
    const controller = new AbortController();
    const get = path => api.get(path, { signal: controller.signal });
    (async () => {
      for (const { execution_id: id, status } of rows) {
        if (kept.get(id)?.status === status && /COMPLETED|FAILED|CANCELLED/.test(status)) continue;
        const states = await get(`workflows/${id}/states`).catch(error => { if (error.name === 'AbortError') throw error; return null; });
        if (!states) continue;
        const same = [...kept.values()].find(one => one.plan === states.plan);
        const ids = same?.ids ?? (await get(`workflows/${id}/graph`)).ids;
        kept.set(id, { ids, plan: states.plan, states: states.states, letters: states.letters, status });
      }
      const nodes = new Map();
      for (const { execution_id: id } of [...rows].reverse()) for (const node of kept.get(id)?.ids ?? []) nodes.set(node, nodes.size);
      setFound({ nodes: [...new Set([...rows].reverse().flatMap(row => kept.get(row.execution_id)?.ids ?? []))], cells: new Map(kept) });
    })().catch(() => { /* The next look asks again. */ });
    return () => controller.abort();
  }, [key]);
  return found;
}

const nameOf = (letter, letters) => (letter === UPSTREAM ? 'UPSTREAM' : letters[letter]);

function Cells({ rows }) {
  const { nodes, cells } = useStates(rows);
  const [at, setAt] = useState(null);
  const scroller = useRef(null);
  // Where they do not all fit, the newest are in sight.
  useEffect(() => { scroller.current.scrollLeft = scroller.current.scrollWidth; }, [rows.length, nodes.length]);
  const shown = nodes.slice(0, NODES_MAX);
  const index = useMemo(() => new Map(shown.map((node, row) => [node, row])), [nodes]);
  const took = rows.map(row => row.duration_ms ?? (row.triggered_ms ? Math.max(0, now.value - row.triggered_ms) : 0));
  const longest = Math.max(1, ...took);
  const running = rows.filter(row => row.triggered_ms && !row.finished_ms).length;
  const paths = {};
  const states = new Map();
  rows.forEach((row, column) => {
    const known = cells.get(row.execution_id);
    known?.ids.forEach((node, position) => {
      const line = index.get(node);
      if (line === undefined) return;
      const state = nameOf(known.states[position], known.letters);
      states.set(`${column},${line}`, state);
      paths[state] = (paths[state] ?? '') + cellPath(state, column * CELL, TOP + line * CELL);
    });
  });
  const width = rows.length * CELL;
  const height = TOP + shown.length * CELL;
  const place = event => {
    const box = event.currentTarget.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / CELL);
    const line = Math.floor((event.clientY - box.top - TOP) / CELL);
    return column >= 0 && column < rows.length ? { column, line: Math.max(-1, Math.min(line, shown.length - 1)) } : null;
  };
  const open = ({ column, line }) => navigate(`executions/${rows[column].execution_id}`, { query: { node: line >= 0 ? shown[line] : null } });
  const onKeyDown = event => {
    const { column, line } = at ?? { column: rows.length - 1, line: -1 };
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (move) setAt({ column: Math.max(0, Math.min(rows.length - 1, column + move[0])), line: Math.max(-1, Math.min(shown.length - 1, line + move[1])) });
    else if (event.key === 'Enter') open({ column, line });
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const row = at && rows[at.column];
  const state = at && states.get(`${at.column},${at.line}`);
  return html`<div class="stack">
    <p class="soft num grid-said" aria-live="off">${row
      ? html`<${Link} class="mono" to=${`executions/${row.execution_id}`}>${row.execution_id}<//> <${State} value=${row.status} /> <${Time} ms=${row.submitted_ms} /> ${duration(took[at.column])} ${at.line >= 0 && html`<span> · <${Name} value=${shown[at.line]} mono /> ${state ? html`<${State} value=${state} />` : 'not in this version'}</span>`}`
      : `${rows.length === 1 ? 'The only one' : `The last ${number(rows.length)}, the newest at the right`}. The bars above are how long each took${running ? `, or has run until now (${number(running)})` : ''}: ${duration(longest)}${rows.length === 1 ? '' : ' at most'}.`}</p>
    <div class="scroll grid-scroll" ref=${scroller}><div class="grid-names">${shown.map(node => html`<${Name} key=${node} value=${node} mono />`)}</div>
      <svg class="grid" width=${width} height=${height} tabindex="0" role="application" aria-roledescription="grid of executions and nodes"
        aria-label=${row ? `${row.execution_id}, ${stateOf(row.status).word}${at.line >= 0 ? `, ${shown[at.line]}: ${state ? stateOf(state).word : 'not in this version'}` : ''}` : 'Executions and their nodes; arrow keys move, Enter opens'}
        onMouseMove=${event => setAt(place(event))} onMouseLeave=${() => setAt(null)} onClick=${event => { const here = place(event); if (here) open(here); }} onKeyDown=${onKeyDown}>
        ${at && html`<rect class="grid-at" x=${at.column * CELL} y="0" width=${CELL} height=${height} />`}
        ${at && at.line >= 0 && html`<rect class="grid-at" x="0" y=${TOP + at.line * CELL} width=${width} height=${CELL} />`}
        ${rows.map((one, column) => {
          const tall = Math.max(2, (took[column] / longest) * (TOP - 10));
          return html`<rect key=${one.execution_id} class=${`bar ${stateOf(one.status).cls}`} x=${column * CELL + 4} width=${CELL - 8} y=${TOP - 6 - tall} height=${tall} />`;
        })}
        ${Object.entries(paths).map(([one, path]) => html`<path key=${one} class=${`cells ${stateOf(one).cls} ${OUTLINED.has(one) ? 'outline' : ''}`} d=${path} />`)}
      </svg></div>
    ${nodes.length > NODES_MAX && html`<p class="soft">and ${number(nodes.length - NODES_MAX)} more nodes</p>`}
    <div class="row grid-legend">${Object.keys(paths).map(one => html`<span key=${one} class=${`state ${stateOf(one).cls}`}><svg width="14" height="14" viewBox=${`0 0 ${CELL} ${CELL}`} aria-hidden="true"><path class=${`cells ${OUTLINED.has(one) ? 'outline' : ''}`} d=${cellPath(one, 0, 0)} /></svg>${stateOf(one).word}</span>`)}</div>
  </div>`;
}

const OUTLINED = new Set(['RUNNING', 'QUEUED', 'WAITING', 'UPSTREAM', 'CANCELLED']);

/** A square for what went well, a cross, a ring, a dot: the shapes tell the states apart. */
function cellPath(state, x, y) {
  const box = (inset, size = CELL - 2 * inset) => `M${x + inset} ${y + inset}h${size}v${size}h-${size}z`;
  switch (state) {
    case 'COMPLETED': return box(3.5);
    case 'FAILED': return `M${x + 3} ${y + 5}l2-2l4 4l4-4l2 2l-4 4l4 4l-2 2l-4-4l-4 4l-2-2l4-4z`;
    case 'UPSTREAM': return `M${x + 4.5} ${y + 4.5}l9 9M${x + 13.5} ${y + 4.5}l-9 9`;
    case 'RUNNING': return `${box(4)}M${x + 7} ${y + 6.5}l5 2.5l-5 2.5z`;
    case 'CANCELLED': return `${box(4)}M${x + 4} ${y + 14}l10-10`;
    case 'RETRYING': return `M${x + 9} ${y + 3}l6 6l-6 6l-6-6z`;
    case 'SKIPPED': return `M${x + 4} ${y + 8}h10v2h-10z`;
    case 'QUEUED': case 'WAITING': return box(4.5);
    default: return box(7.5);
  }
}
