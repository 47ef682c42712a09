// Definitions: the saved workflows, each with its latest version.
import { html } from '../lib.js';
import { usePages } from '../lists.js';
import { Link, navigate, setQuery, useTitle } from '../router.js';
import { VirtualTable } from '../table.js';
import { Empty, Failure, Name, Time, number } from '../ui.js';

const to = row => `definitions/${encodeURIComponent(row.name)}`;
const COLUMNS = [
  { id: 'name', head: 'Name', cell: row => html`<${Link} to=${to(row)}><${Name} value=${row.name} /><//>` },
  { id: 'labels', head: 'Labels', cell: row => Object.entries(row.labels).map(([name, value]) => html`<button key=${name} class="label" onClick=${() => setQuery({ label: `${name}:${value}` })}><bdi>${name}:${value}</bdi></button> `) },
  { id: 'version', head: 'Version', cls: 'num', cell: row => number(row.version) },
  { id: 'nodes', head: 'Nodes', cls: 'num', cell: row => number(row.nodes) },
  { id: 'time', head: 'Saved', cell: row => html`<${Time} ms=${row.saved_ms} />` },
];

export default function Definitions({ query }) {
  useTitle('Definitions');
  const list = usePages('definitions', 'definitions', { query: { label: query.label }, everyMs: 30_000 });
  return html`<div class="page fill">
    <div class="toolbar"><h1>Definitions</h1>${query.label && html`<button class="chip" aria-pressed="true" onClick=${() => setQuery({ label: null })}><bdi>${query.label}</bdi> ✕</button>`}</div>
    <${VirtualTable} label="Definitions" rows=${list.rows} rowId=${row => row.name} columns=${COLUMNS} onEnd=${list.more} onOpen=${row => navigate(to(row))}
      footer=${list.error ? html`<${Failure} error=${list.error} retry=${list.reload} />` : !list.loading && !list.rows.length && html`<${Empty} title=${query.label ? 'No definition has this label.' : 'No saved definitions.'}><code>flowd definitions put report workflow.yaml</code> saves one, and so does <${Link} to="submit">Submit<//>.<//>`} />
  </div>`;
}
