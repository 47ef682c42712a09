// Fold what looks alike, so that ten thousand nodes become a handful of shapes.
//
// Unbranched runs become one shape, then nodes (or runs) with the same handler, the same
// dependencies and the same dependents do. A graph of up to `whole` nodes stays as it is.
// Pure, and deterministic: shapes keep the order of their first nodes.

export const WHOLE = 40;
const ALIKE_MIN = 4;
const RUN_MIN = 4;
// People look for these by name: they break a run.
const NOTABLE = new Set(['signal', 'workflow']);

/** Where each node's dependents stand, as columns: those of `i` are `to[start[i]..start[i + 1]]`. */
export function dependentsOf(dependencies) {
  const count = dependencies.length;
  const start = new Int32Array(count + 1);
  for (const above of dependencies) for (const one of above) start[one + 1] += 1;
  for (let i = 0; i < count; i += 1) start[i + 1] += start[i];
  const to = new Int32Array(start[count]);
  const next = start.slice(0, count);
  for (let i = 0; i < count; i += 1) for (const one of dependencies[i]) to[next[one]++] = i;
  return { start, to };
}

/**
 * The shapes to draw for `graph` (`handlers`, `dependencies`; `maps` and `finals` as sets of indices).
 * A shape has its `kind` (node, run, group, runs), its `members` as indices of nodes, whether their
 * handlers are mixed, and the `size` of one run where it is several; `edges` are pairs of shapes.
 */
export function collapse(graph, { whole = WHOLE, open = new Set() } = {}) {
  const count = graph.dependencies.length;
  const runs = count <= whole ? singles(count) : foldRuns(graph, open);
  const folded = count <= whole ? runs : foldAlike(graph, runs, open);
  return joined(graph, folded);
}

function singles(count) {
  const shapes = new Array(count);
  for (let i = 0; i < count; i += 1) shapes[i] = [i];
  return shapes.map((members) => ({ kind: 'node', members }));
}

/** Chains of nodes of which each has one dependent and that one dependency. */
function foldRuns(graph, open) {
  const { dependencies, handlers, maps } = graph;
  const count = dependencies.length;
  const { start, to } = dependentsOf(dependencies);
  const plain = (i) => !NOTABLE.has(handlers[i]) && !maps.has(i);
  const follows = (i) => {
    if (start[i + 1] - start[i] !== 1 || !plain(i)) return -1;
    const next = to[start[i]];
    return dependencies[next].length === 1 && plain(next) ? next : -1;
  };
  const isInside = new Uint8Array(count);
  for (let i = 0; i < count; i += 1) {
    const next = follows(i);
    if (next >= 0) isInside[next] = 1;
  }
  const shapes = [];
  for (let i = 0; i < count; i += 1) {
    if (isInside[i]) continue;
    const members = [i];
    for (let next = follows(i); next >= 0; next = follows(next)) members.push(next);
    if (members.length >= RUN_MIN && !open.has(keyOf('run', members))) {
      shapes.push({ kind: 'run', members });
    } else {
      for (const one of members) shapes.push({ kind: 'node', members: [one] });
    }
  }
  return shapes.sort((one, other) => one.members[0] - other.members[0]);
}

/** Shapes that nobody could tell apart by what stands round them. */
function foldAlike(graph, shapes, open) {
  const { dependencies, handlers, finals, maps } = graph;
  const { start, to } = dependentsOf(dependencies);
  const alike = new Map();
  for (const shape of shapes) {
    const { members } = shape;
    const [first, last] = [members[0], members[members.length - 1]];
    const marks = (maps.has(first) ? 'm' : '') + (finals.has(first) ? 'f' : '');
    const words = members.map((one) => handlers[one]).join();
    const below = to.subarray(start[last], start[last + 1]).join();
    const sign = [marks, words, sorted(dependencies[first]).join(), below].join('|');
    const found = alike.get(sign);
    if (found) found.push(shape);
    else alike.set(sign, [shape]);
  }
  const folded = [];
  for (const some of alike.values()) {
    const members = some.flatMap((shape) => shape.members);
    const kind = some[0].kind === 'run' ? 'runs' : 'group';
    if (some.length < ALIKE_MIN || open.has(keyOf(kind, members))) folded.push(...some);
    else folded.push({ kind, members, size: some[0].members.length });
  }
  return folded.sort((one, other) => one.members[0] - other.members[0]);
}

function sorted(indices) {
  return indices.length < 2 ? indices : [...indices].sort((one, other) => one - other);
}

function keyOf(kind, members) {
  return `${kind}:${members[0]}`;
}

/** Shapes with all that is said of them, and the edges between them. */
function joined(graph, folded) {
  const { dependencies, handlers, finals } = graph;
  const shapeOf = new Int32Array(dependencies.length);
  folded.forEach((shape, at) => shape.members.forEach((one) => (shapeOf[one] = at)));
  const shapes = folded.map(({ kind, members, size = 1 }) => ({
    key: keyOf(kind, members),
    kind,
    members,
    size,
    isMixed: !members.every((one) => handlers[one] === handlers[members[0]]),
    isFinal: finals.has(members[0]),
  }));
  const seen = new Set();
  const edges = [];
  dependencies.forEach((above, i) => {
    for (const one of above) {
      const [from, to] = [shapeOf[one], shapeOf[i]];
      const sign = from * shapes.length + to;
      if (from === to || seen.has(sign)) continue;
      seen.add(sign);
      edges.push([from, to]);
    }
  });
  return { shapes, edges, shapeOf };
}
