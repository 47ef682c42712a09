// Folds and lays out off the page's thread. It is told a graph once, then asked for views of it.

import { collapse } from './collapse.js';
import { layOut } from './layout.js';
import { neighbourhood, subgraph } from './neighbourhood.js';
import { packed } from './packing.js';

let graph = null;

self.onmessage = ({ data }) => {
  if (data.graph) graph = data.graph;
  if (!data.ask) return;
  const { columns, buffers } = packed(viewOf(graph, data));
  self.postMessage({ ask: data.ask, columns }, buffers);
};

function viewOf(whole, { focus = null, open = [] }) {
  const origin = focus && neighbourhood(whole.dependencies, focus.node, focus.hops);
  const part = origin ? subgraph(whole, origin) : whole;
  const { shapes, edges, shapeOf } = collapse(part, { open: new Set(open) });
  const finals = new Set();
  shapes.forEach((shape, at) => shape.isFinal && finals.add(at));
  const places = layOut(shapes.length, edges, finals);
  if (!origin) return { shapes, edges, shapeOf, origin, ...places };
  for (const shape of shapes) shape.members = shape.members.map((one) => origin[one]);
  const inWhole = new Int32Array(whole.dependencies.length).fill(-1);
  origin.forEach((one, at) => (inWhole[one] = shapeOf[at]));
  return { shapes, edges, shapeOf: inWhole, origin, ...places };
}
