// How a workflow looks that has not run: the graph of an execution, without states.
import { html, useEffect, useMemo, useState } from '../lib.js';

export function DryGraph({ saved }) {
  const [Graph, setGraph] = useState(null);
  const nodes = useMemo(() => saved.definition.dag?.nodes ?? [], [saved]);
  useEffect(() => { import('../graph/graph.js').then(module => setGraph(() => module.Graph)); }, []);
  return html`<div class="dry">${Graph && html`<${Graph} nodes=${nodes} states=${null} />`}</div>`;
}
