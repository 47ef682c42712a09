// Submit: paste a workflow, see at once what is wrong with it and how it looks, then run it and follow.
import { html, useEffect, useMemo, useRef, useState } from '../lib.js';
import { api } from '../api.js';
import { useTitle, navigate } from '../router.js';
import { visibleText } from '../format.js';
import { Button, CopyAs, Failure, Field, Glyph, Name, notify, plural } from '../ui.js';
import { placed, readWorkflow } from '../written.js';
import { DryGraph } from './dry_graph.js';

const TYPED_MS = 350;
const KEPT = 'flowd.submit';
const EXAMPLE = `name: hello
dag:
  nodes:
    - id: greet
      handler: noop
    - id: report
      handler: noop
      dependencies: [greet]
`;

function useChecked(text) {
  const [checked, setChecked] = useState({});
  useEffect(() => {
    const found = readWorkflow(text);
    if (!found.workflow) {
      setChecked(found);
      return undefined;
    }
    const controller = new AbortController();
    setChecked(before => ({ ...found, isChecking: true, nodes: before.nodes }));
    const timer = setTimeout(async () => {
      try {
        const { nodes } = await api.post('workflow/validate', found.workflow, { signal: controller.signal });
        setChecked({ ...found, nodes });
      } catch (error) {
        if (controller.signal.aborted) return;
        setChecked(error.status === 400 || error.status === 413 ? { ...found, wrong: error.errors.map(one => placed(one, found)) } : { ...found, error });
      }
    }, TYPED_MS);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [text]);
  return checked;
}

const kept = () => {
  try {
    return sessionStorage.getItem(KEPT) ?? '';
  } catch {
    return '';
  }
};

export default function Submit() {
  useTitle('Submit');
  const [text, setText] = useState(kept);
  const [name, setName] = useState('');
  const [error, setError] = useState(null);
  const area = useRef(null);
  const checked = useChecked(text);
  useEffect(() => { try { sessionStorage.setItem(KEPT, text); } catch { /* It is lost with the page. */ } }, [text]);
  const isGood = checked.workflow && checked.nodes !== undefined && !checked.wrong && !checked.isChecking;
  const why = isGood ? false : 'there is no valid workflow yet';
  const send = async (path, query) => {
    setError(null);
    try {
      const { execution_id: id } = await api.post(path, checked.workflow, { query });
      navigate(`executions/${id}`);
    } catch (cause) {
      setError(cause);
    }
  };
  const save = async () => {
    setError(null);
    try {
      const saved = await api.put(`definitions/${encodeURIComponent(name)}`, checked.workflow);
      notify(`${saved.message}: version ${saved.version}`, { to: `definitions/${encodeURIComponent(name)}`, label: 'Look at it' });
    } catch (cause) {
      setError(cause);
    }
  };
  const goTo = line => {
    const start = text.split('\n').slice(0, line - 1).join('\n').length + (line > 1 ? 1 : 0);
    area.current.focus();
    area.current.setSelectionRange(start, start + text.split('\n')[line - 1].length);
  };
  const saved = useMemo(() => (isGood ? { definition: checked.workflow } : null), [isGood, checked.workflow]);
  return html`<div class="page">
    <div class="toolbar"><h1>Submit</h1><span class="soft">a workflow in YAML or JSON</span></div>
    <div class="submit">
      <div class="stack">
        <${Field} label="Workflow">${id => html`<textarea id=${id} ref=${area} class="mono code" data-search spellcheck=${false} autocapitalize="off" value=${text} aria-describedby="verdict" onInput=${event => setText(event.target.value)}
          onDrop=${async event => { const file = event.dataTransfer?.files?.[0]; if (file) { event.preventDefault(); setText(await file.text()); } }} onDragOver=${event => event.preventDefault()}></textarea>`}<//>
        <div class="row"><${Button} kind="primary" scope="trigger" disabled=${why} onClick=${() => send('workflow', { trigger: true })}>Submit and trigger<//>
          <${Button} scope="trigger" disabled=${why} onClick=${() => send('workflow')}>Only submit<//>
          ${isGood && html`<${CopyAs} flowd="flowd submit workflow.yaml --trigger" request=${{ method: 'POST', path: 'workflow', query: { trigger: true }, body: checked.workflow }} />`}
          ${!text && html`<button class="btn quiet" onClick=${() => setText(EXAMPLE)}>An example</button>`}</div>
        <form class="row" onSubmit=${event => { event.preventDefault(); if (isGood && name) save(); }}>
          <label class="visually-hidden" for="save-as">Name of the definition</label><input id="save-as" placeholder="name of a definition" autocomplete="off" value=${name} onInput=${event => setName(event.target.value.trim())} />
          <${Button} scope="trigger" type="button" disabled=${why || (name ? false : 'it has no name yet')} onClick=${save}>Save as a definition<//></form>
        <${Failure} error=${error} compact />
      </div>
      <div class="stack" id="verdict" aria-live="polite"><${Verdict} checked=${checked} isGood=${isGood} isEmpty=${!text.trim()} goTo=${goTo} />
        ${saved && html`<${DryGraph} saved=${saved} />`}</div>
    </div>
  </div>`;
}

function Verdict({ checked, isGood, isEmpty, goTo }) {
  if (isEmpty) return html`<p class="soft">What is wrong with it shows here while you type, with the places; then how it looks. A file may be dropped into the field.</p>`;
  if (checked.error) return html`<${Failure} error=${checked.error} compact />`;
  if (checked.wrong) {
    return html`<div class="failure compact"><${Glyph} state="FAILED" /><div class="grow"><p>${plural(checked.wrong.length, 'problem')}</p><ul>${checked.wrong.slice(0, 100).map((one, at) => html`<li key=${at}>${one.line
      ? html`<button class="btn quiet" title=${one.path} onClick=${() => goTo(one.line)}>line ${one.line}</button>` : html`<code><${Name} value=${one.path} /></code>`}${one.node && html` <${Name} value=${one.node} mono />:`} ${visibleText(one.message)}</li>`)}</ul></div></div>`;
  }
  return isGood ? html`<p class="s-completed state"><${Glyph} state="COMPLETED" /> <span>Valid: ${plural(checked.nodes, 'node')}</span></p>` : html`<p class="soft">Checking …</p>`;
}
