// Dead letters: what was given up, and how it is tried again.
import { html, useState } from '../lib.js';
import { api } from '../api.js';
import { usePages } from '../lists.js';
import { Link, navigate, useTitle } from '../router.js';
import { VirtualTable } from '../table.js';
import { Action, Dialog, Empty, Failure, Json, Linked, Name, Time, notify, number, plural } from '../ui.js';

export default function DeadLetters() {
  useTitle('Dead letters');
  const list = usePages('dead-letters', 'dead_letters', { everyMs: 15_000 });
  const [shown, setShown] = useState(null);
  const withNode = list.rows.filter(row => row.execution_id && row.node_id);
  return html`<div class="page fill">
    <div class="toolbar"><h1>Dead letters</h1><span class="soft num">${list.rows.length > 0 && `${number(list.rows.length)}${list.next ? '+' : ''}`}</span><span class="grow"></span>
      ${list.rows.length > 0 && html`
        <${Action} label="Redrive all" disabled=${withNode.length ? false : 'none of them names a node'}
          ask=${html`<p>Runs ${plural(withNode.length, 'node')} again, each with everything downstream of it in a new execution.</p>`}
          confirm=${`Redrive ${number(withNode.length)}`} run=${() => redriveAll(withNode)} onDone=${list.reload} />
        <${Action} label="Delete all" scope="admin" kind="danger" ask=${html`<p>Deletes all dead letters: ${number(list.rows.length)}${list.next ? ' and those that are not shown' : ''}. Their executions stay.</p>`}
          confirm="Delete all" run=${() => api.del('dead-letters')} done=${answer => `${plural(answer.deleted, 'dead letter')} deleted`} onDone=${list.reload}
          flowd="flowd dlq purge --all" request=${{ method: 'DELETE', path: 'dead-letters' }} />`}
    </div>
    <${VirtualTable} label="Dead letters" rows=${list.rows} rowId=${row => row.dead_letter_id} onEnd=${list.more} onOpen=${setShown}
      columns=${columns(list.reload)}
      footer=${list.error ? html`<${Failure} error=${list.error} retry=${list.reload} />` : !list.loading && !list.rows.length && html`<${Empty} title="No dead letters.">Nodes that were given up, and entries nobody could run, are kept here.<//>`} />
    ${shown && html`<${Letter} row=${shown} onClose=${() => setShown(null)} />`}
  </div>`;
}

const columns = reload => [
  { id: 'time', head: 'Given up', cell: row => html`<${Time} ms=${row.at_ms} />` },
  { id: 'node', head: 'Node', cell: row => (row.node_id ? html`<${Link} to=${`executions/${row.execution_id}`} query=${{ node: row.node_id }}><${Name} value=${row.node_id} mono /><//>` : html`<span class="soft">an entry</span>`) },
  { id: 'reason', head: 'Why', cell: row => html`<${Name} value=${row.reason} />` },
  { id: 'attempt', head: 'Attempt', cls: 'num', cell: row => number(row.attempt) },
  { id: 'act', head: 'Actions', cls: 'actions', cell: row => html`<${Action} label="Redrive" kind="quiet" disabled=${row.node_id ? false : 'nobody knows which node this was'} run=${() => api.post(`dead-letters/${row.dead_letter_id}/redrive`)}
      onDone=${answer => { notify('It runs again.', { to: `executions/${answer.execution_id}`, label: 'Look at it' }); reload(); }} />
    <${Action} label="Delete" kind="quiet" scope="admin" ask=${html`<p>Deletes one dead letter. Its execution stays.</p>`} confirm="Delete 1" run=${() => api.del(`dead-letters/${row.dead_letter_id}`)} done="Dead letter deleted" onDone=${reload}
      flowd=${`flowd dlq purge ${row.dead_letter_id}`} request=${{ method: 'DELETE', path: `dead-letters/${row.dead_letter_id}` }} />` },
];

async function redriveAll(rows) {
  const failed = [];
  for (const row of rows) {
    try {
      await api.post(`dead-letters/${row.dead_letter_id}/redrive`);
    } catch (error) {
      failed.push(error);
    }
  }
  if (failed.length) throw failed[0];
  notify(`${plural(rows.length, 'node')} redriven`);
}

function Letter({ row, onClose }) {
  return html`<${Dialog} title="Dead letter" onClose=${onClose} wide>
    <div class="dialog-body"><p><${Linked} text=${row.reason} /></p><${Json} value=${row} /></div>
    <footer><span class="grow"></span>${row.execution_id && html`<button class="btn" onClick=${() => { onClose(); navigate(`executions/${row.execution_id}`, { query: { node: row.node_id } }); }}>Look at its execution</button>`}<button class="btn" onClick=${onClose}>Close</button></footer>
  <//>`;
}
