// The graph of a workflow: folded and laid out in a worker, drawn by the canvas, in its states.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState, workerUrl } from '../lib.js';
import { number } from '../format.js';
import { Glyph, announce } from '../ui.js';
import { GraphCanvas } from './canvas.js';
import { nameOf, sentence } from './labels.js';
import { Drawing } from './packing.js';
import { CODE_OF, STATES, Tally } from './states.js';

const HOPS = 2;
const HOPS_MAX = 9;
/** A shape of more nodes is not taken apart: its list shows them better. */
const OPENED_MAX = 400;

/** The columns of `GET …/graph`, or nodes of a definition, as the worker takes them. */
export function graphOf({ graph, nodes }) {
  if (graph) {
    return {
      ids: graph.ids,
      handlers: graph.handler.map(one => graph.handlers[one]),
      dependencies: graph.dependencies,
      maps: new Set(graph.maps),
      finals: new Set(graph.finally),
    };
  }
  const place = new Map(nodes.map((node, at) => [node.id, at]));
  const indices = keep => new Set(nodes.flatMap((node, at) => (keep(node) ? [at] : [])));
  return {
    ids: nodes.map(node => String(node.id)),
    handlers: nodes.map(node => String(node.handler ?? '')),
    dependencies: nodes.map(node => (node.dependencies ?? []).flatMap(one => place.get(one) ?? [])),
    maps: indices(node => node.map),
    finals: indices(node => node.isFinal),
  };
}

function partsOf(items) {
  return new Map(Object.entries(items ?? {}).map(([index, counts]) => {
    const parts = Object.entries(counts).filter(([, count]) => count).map(([state, count]) => [CODE_OF[state] ?? CODE_OF.CORRUPT, count]);
    return [Number(index), parts.sort(([one], [other]) => one - other)];
  }));
}

const newWorker = () => new Worker(workerUrl('./worker.js', import.meta.url), { type: 'module' });
// It loads its modules while the graph is still on its way.
let spare = newWorker();

/** The drawing of a graph as the worker makes it: of all of it, or of what is near one node. */
function useDrawing(graph, focus, open) {
  const [drawing, setDrawing] = useState(null);
  const worker = useRef(null);
  useLayoutEffect(() => {
    const made = spare ?? newWorker();
    spare = null;
    worker.current = made;
    let newest = 0;
    made.onmessage = ({ data }) => data.ask === newest && setDrawing(new Drawing(data.columns));
    made.ask = view => made.postMessage({ ask: (newest += 1), ...view });
    made.postMessage({ graph });
    return () => made.terminate();
  }, [graph]);
  useLayoutEffect(() => worker.current.ask({ focus, open }), [graph, focus?.node, focus?.hops, open]);
  return drawing;
}

/**
 * `graph` (as the API answers it) or `nodes` (of a definition); `states` one letter a node, or null;
 * `selected` the id of a node. `onSelect(id)` of a node, `onGroup({name, members})` of several at once.
 */
export function Graph({ graph: columns, nodes, states, items, selected, onSelect, onGroup, label = 'Graph of the workflow' }) {
  const graph = useMemo(() => graphOf({ graph: columns, nodes }), [columns, nodes]);
  const [focus, setFocus] = useState(null);
  const [open, setOpen] = useState([]);
  const drawing = useDrawing(graph, focus, open);
  const host = useRef(null);
  const canvas = useRef(null);
  const handed = useRef({});
  const [totals, setTotals] = useState([]);
  const [group, setGroup] = useState(null);
  const at = selected === undefined || selected === null ? -1 : graph.ids.indexOf(selected);
  handed.current = { onSelect, onGroup };

  useLayoutEffect(() => {
    const look = shape => {
      const { drawing: drawn, tally } = canvas.current;
      announce(sentence(drawn.shape(shape), graph, tally, shape));
    };
    const choose = shape => {
      const chosen = canvas.current.drawing.shape(shape);
      const isOne = chosen.members.length === 1;
      setGroup(isOne ? null : { key: `${chosen.kind}:${chosen.members[0]}`, size: chosen.members.length });
      if (isOne) handed.current.onSelect?.(graph.ids[chosen.members[0]]);
      else handed.current.onGroup?.({ name: nameOf(chosen, graph), members: chosen.members });
    };
    canvas.current = { made: new GraphCanvas(host.current, { onChoose: choose, onLook: look }), tally: null, drawing: null };
    return () => canvas.current.made.close();
  }, [graph]);

  useLayoutEffect(() => {
    if (!drawing) return;
    const tally = new Tally(drawing.shapeOf, drawing.count);
    tally.apply(states ?? 'P'.repeat(graph.ids.length));
    Object.assign(canvas.current, { tally, drawing });
    canvas.current.made.show(drawing, tally, graph, { items: partsOf(items), isDry: !states });
    setTotals(states ? [...tally.totals] : []);
    if (at >= 0 && drawing.shapeOf[at] >= 0) canvas.current.made.choose(drawing.shapeOf[at]);
  }, [drawing]);

  useLayoutEffect(() => {
    const { made, tally } = canvas.current;
    if (!tally || !states) return;
    const changed = tally.apply(states);
    const parts = partsOf(items);
    for (const index of parts.keys()) if (drawing.shapeOf[index] >= 0) changed.add(drawing.shapeOf[index]);
    made.items = parts;
    made.refresh(changed);
    if (changed.size) setTotals([...tally.totals]);
  }, [states, items]);

  useEffect(() => {
    const { made, drawing: drawn } = canvas.current;
    if (drawn) made.choose(at >= 0 ? drawn.shapeOf[at] : -1, { isSeen: false });
  }, [at]);

  const next = code => {
    const { made, drawing: drawn, tally } = canvas.current;
    for (let step = 1; step <= drawn.count; step += 1) {
      const shape = (made.chosen + step + drawn.count) % drawn.count;
      if (tally.counts[shape * STATES.length + code] === 0) continue;
      made.choose(shape);
      return;
    }
  };
  const find = event => {
    if (event.key !== 'Enter' || !event.target.value) return;
    const wanted = event.target.value.toLowerCase();
    const matches = graph.ids.filter(id => id.toLowerCase().includes(wanted));
    if (!matches.length) announce(`no node is called ${event.target.value}`);
    else handed.current.onSelect?.(matches[(matches.indexOf(selected) + 1) % matches.length]);
  };
  const hops = focus?.hops ?? HOPS;
  const setHops = by => setFocus({ node: focus.node, hops: Math.max(1, Math.min(HOPS_MAX, hops + by)) });
  return html`<div class="graph">
    <div class="graph-tools">
      <input type="search" class="graph-find" placeholder="Find a node" aria-label="Find a node" onKeyDown=${find} />
      <span class="row graph-legend">${STATES.map((state, code) => totals[code] > 0 && html`<button key=${state.name} class="legend ${state.cls}" title="Show the next one that is ${state.word.toLowerCase()}"
        onClick=${() => next(code)}><${Glyph} state=${state.name} /><b class="num">${number(totals[code])}</b><span class="word">${state.word}</span></button>`)}</span>
      <span class="grow"></span>
      ${group && group.size <= OPENED_MAX && html`<button class="btn quiet" onClick=${() => { setOpen([...open, group.key]); setGroup(null); }}>Show each of ${number(group.size)}</button>`}
      ${open.length > 0 && html`<button class="btn quiet" onClick=${() => setOpen([])}>Fold again</button>`}
      ${focus && html`<span class="row focus-hops"><button class="btn quiet icon" aria-label="Fewer hops" onClick=${() => setHops(-1)}>−</button>
        <span>± ${hops} ${hops === 1 ? 'hop' : 'hops'} round <b>${graph.ids[focus.node]}</b></span>
        <button class="btn quiet icon" aria-label="More hops" onClick=${() => setHops(1)}>+</button>
        <button class="btn quiet" onClick=${() => setFocus(null)}>Whole graph</button></span>`}
      ${at >= 0 && focus?.node !== at && html`<button class="btn quiet" onClick=${() => setFocus({ node: at, hops })}>Focus</button>`}
      <span class="row zoom"><button class="btn quiet icon" aria-label="Zoom out" onClick=${() => canvas.current.made.zoom(0.8)}>−</button>
      <button class="btn quiet" onClick=${() => canvas.current.made.fit({ isWhole: true })}>Fit</button>
      <button class="btn quiet icon" aria-label="Zoom in" onClick=${() => canvas.current.made.zoom(1.25)}>+</button></span>
    </div>
    <div ref=${host} class="g-host" tabindex="0" role="application" aria-roledescription="graph" data-nodes=${graph.ids.length} data-ready=${drawing ? 'true' : undefined}
      aria-label=${`${label}: ${number(graph.ids.length)} nodes. Arrow keys follow its edges, Enter opens a node; the tab Nodes is the same as a table.`}></div>
  </div>`;
}
