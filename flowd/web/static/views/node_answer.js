// Answer a node that waits: approve it, reject it, or send it what it asks for.
import { html, useState } from '../lib.js';
import { api } from '../api.js';
import { shellWord } from '../format.js';
import { Button, CopyAs, Failure, Field, Linked, notify } from '../ui.js';

const SENT = '{}';

function parsed(text) {
  try {
    return { data: JSON.parse(text) };
  } catch (error) {
    return { wrong: `this is no JSON: ${error.message}` };
  }
}

export function Answer({ execution: { id }, data, onDone }) {
  const [text, setText] = useState(SENT);
  const [reason, setReason] = useState('');
  const [state, setState] = useState({ busy: false, error: null });
  const { wrong, ...given } = parsed(text);
  const path = `workflows/${id}/nodes/${data.node_id}/signal`;
  const send = async (body, said) => {
    setState({ busy: true, error: null });
    try {
      await api.post(path, body);
      setState({ busy: false, error: null });
      notify(`${data.node_id}: ${said}`);
      onDone();
    } catch (error) {
      setState({ busy: false, error });
    }
  };
  const why = wrong ?? (state.busy ? 'it is being sent' : '');
  return html`<section class="answer" aria-label="Answer">
    <p>${data.waiting.text ? html`<${Linked} text=${data.waiting.text} />` : 'It waits for an answer.'}</p>
    <${Field} label="Data" error=${wrong}>${input => html`<textarea id=${input} class="mono" rows="3" spellcheck=${false} value=${text} onInput=${event => setText(event.target.value)}></textarea>`}<//>
    <${Field} label="Reason, to reject">${input => html`<input id=${input} value=${reason} maxlength="2000" onInput=${event => setReason(event.target.value)} />`}<//>
    <${Failure} error=${state.error} compact />
    <div class="row">
      <${Button} kind="primary" scope="trigger" disabled=${why || false} onClick=${() => send(given, 'approved')}>Approve<//>
      <${Button} kind="danger" scope="trigger" disabled=${state.busy || (reason.trim() ? false : 'give a reason first')} onClick=${() => send({ reject: reason.trim() }, 'rejected')}>Reject<//>
      <span class="grow"></span>
      <${CopyAs} flowd=${`flowd signal ${id} ${shellWord(data.node_id)} --data ${shellWord(text)}`} request=${{ method: 'POST', path, body: wrong ? undefined : given }} />
    </div>
  </section>`;
}
