// Answer a node that waits: approve it, reject it, or send it what it asks for.
import { html, useState } from '../lib.js';
import { api } from '../api.js';
import { SchemaForm, beginWith, isPlain, readForm, takesTrue } from '../form.js';
import { shellWord } from '../format.js';
import { Button, CopyAs, Failure, Field, Json, Linked, notify } from '../ui.js';

/** What `flowd approve` sends. */
const APPROVAL = { approved: true };

function parsed(text) {
  try {
    return { data: JSON.parse(text) };
  } catch (error) {
    return { wrong: { data: `this is no JSON: ${error.message}` } };
  }
}

/** {fields, read} where a form can ask for it: the fields of an object, or the one of a plain value. */
function formOf(schema) {
  if (Object.keys(schema?.properties ?? {}).length) return { fields: schema, read: value => value };
  if (!isPlain(schema)) return null;
  return { fields: { properties: { answer: { title: 'Answer', ...schema } }, required: ['answer'] }, read: value => value.answer };
}

/** {data, wrong, fields}: what would be sent, why it cannot be, and what it is typed into. */
function useData(schema) {
  const form = formOf(schema);
  const [typed, setTyped] = useState(() => beginWith(form?.fields, takesTrue(schema, 'approved') ? APPROVAL : {}));
  const [text, setText] = useState(JSON.stringify(APPROVAL));
  if (form) {
    const { value, wrong } = readForm(form.fields, typed);
    return { data: form.read(value), wrong, fields: html`<${SchemaForm} schema=${form.fields} typed=${typed} onTyped=${setTyped} wrong=${wrong} />` };
  }
  const { data, wrong = {} } = parsed(text);
  return {
    data, wrong,
    fields: html`<${Field} label="Data" error=${wrong.data}>${input => html`<textarea id=${input} class="mono" rows="3" spellcheck=${false} value=${text} onInput=${event => setText(event.target.value)}></textarea>`}<//>
      ${schema !== undefined && html`<details><summary>What fits</summary><${Json} value=${schema} label="Copy the schema" /></details>`}`,
  };
}

export function Answer({ execution: { id }, data: node, onDone }) {
  const { data, wrong, fields } = useData(node.config.schema);
  const [reason, setReason] = useState('');
  const [state, setState] = useState({ busy: false, error: null });
  const path = `workflows/${id}/nodes/${node.node_id}/signal`;
  const isWrong = Object.keys(wrong).length > 0;
  const isApproval = !isWrong && data?.approved === true;
  const send = async (body, said) => {
    setState({ busy: true, error: null });
    try {
      await api.post(path, body);
      setState({ busy: false, error: null });
      notify(`${node.node_id}: ${said}`);
      onDone();
    } catch (error) {
      setState({ busy: false, error });
    }
  };
  const flowd = JSON.stringify(data) === JSON.stringify(APPROVAL)
    ? `flowd approve ${id} ${shellWord(node.node_id)}` : `flowd signal ${id} ${shellWord(node.node_id)} --data ${shellWord(JSON.stringify(data ?? null))}`;
  return html`<section class="answer" aria-label="Answer">
    <p>${node.waiting.text ? html`<${Linked} text=${node.waiting.text} />` : 'It waits for an answer.'}</p>
    ${fields}
    <${Failure} error=${state.error} compact />
    <div class="row">
      <${Button} kind="primary" scope="trigger" disabled=${state.busy || (isWrong && (wrong.data ?? 'some fields are not filled in as they should be'))} onClick=${() => send({ data }, isApproval ? 'approved' : 'answered')}>${isApproval ? 'Approve' : 'Send'}<//>
      <span class="grow"></span>
      ${!isWrong && html`<${CopyAs} flowd=${flowd} request=${{ method: 'POST', path, body: { data } }} />`}
    </div>
    <${Field} label="Reason, to reject">${input => html`<input id=${input} value=${reason} maxlength="2000" onInput=${event => setReason(event.target.value)} />`}<//>
    <div class="row"><${Button} kind="danger" scope="trigger" disabled=${state.busy || (reason.trim() ? false : 'give a reason first')} onClick=${() => send({ reject: reason.trim() }, 'rejected')}>Reject<//></div>
  </section>`;
}
