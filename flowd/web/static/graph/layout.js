// Lay shapes out in layers, from left to right: every edge points to a later layer.
//
// Layers by the longest path; four sweeps order each layer by the barycentre of its neighbours
// (Sugiyama, Tagawa and Toda 1981); then each layer's shapes go as near to their neighbours as their
// order and sizes allow, which is a regression under an order (pool adjacent violators, Kruskal
// 1964). Pure, deterministic, linear in shapes and edges but for the sorting.

export const BOX = { width: 208, height: 44 };
const GAP = { x: 56, y: 14 };
// An edge over several layers takes a lane through each of them.
const LANE = 10;
const LANES_MAX = 4_000;
const SWEEPS = 4;

/**
 * Places for `count` shapes with `edges` (pairs [from, to], without cycles); those of `finals` come
 * after all others. Answers `x`, `y` (top left), `layer`, the size of all, and for each edge the
 * places its line passes between its ends.
 */
export function layOut(count, edges, finals = new Set()) {
  const layer = layersOf(count, edges, finals);
  const loose = looseOf(count, edges, finals);
  const isLoose = new Set(loose);
  const graph = withLanes(count, edges, layer);
  const rows = firstRows(graph, isLoose);
  const near = neighboursOf(graph);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) reorder(rows, near, sweep % 2 === 0, graph.size);
  const middle = placed(rows, near, graph);
  return finished(count, edges, graph, middle, loose);
}

/** Those that no edge touches: they stand in a grid below the others. */
function looseOf(count, edges, finals) {
  const touched = new Uint8Array(count);
  for (const [from, to] of edges) touched[from] = touched[to] = 1;
  const loose = [];
  for (let i = 0; i < count; i += 1) if (!touched[i] && !finals.has(i)) loose.push(i);
  return loose;
}

function layersOf(count, edges, finals) {
  const outgoing = Array.from({ length: count }, () => []);
  const open = new Int32Array(count);
  for (const [from, to] of edges) {
    outgoing[from].push(to);
    open[to] += 1;
  }
  const isSource = Uint8Array.from(open, (one) => (one === 0 ? 1 : 0));
  const layer = new Int32Array(count);
  const order = [];
  for (let i = 0; i < count; i += 1) if (open[i] === 0) order.push(i);
  for (let at = 0; at < order.length; at += 1) {
    for (const to of outgoing[order[at]]) {
      layer[to] = Math.max(layer[to], layer[order[at]] + 1);
      open[to] -= 1;
      if (open[to] === 0) order.push(to);
    }
  }
  // What nothing comes before stands next to what needs it.
  for (let i = 0; i < count; i += 1) {
    if (!isSource[i] || outgoing[i].length === 0) continue;
    layer[i] = outgoing[i].reduce((least, to) => Math.min(least, layer[to]), layer.length) - 1;
  }
  if (finals.size) {
    let last = -1;
    for (let i = 0; i < count; i += 1) if (!finals.has(i)) last = Math.max(last, layer[i]);
    for (const one of finals) layer[one] += last + 1;
  }
  return layer;
}

/** The same graph with a lane in every layer that an edge passes, unless there would be too many. */
function withLanes(count, edges, layer) {
  const spans = edges.map(([from, to]) => layer[to] - layer[from] - 1);
  const lanes = spans.reduce((sum, one) => sum + one, 0);
  const isLaned = lanes <= LANES_MAX;
  const size = count + (isLaned ? lanes : 0);
  const layers = new Int32Array(size);
  layers.set(layer);
  const links = [];
  let made = count;
  const passed = edges.map(([from, to], edge) => {
    const places = [];
    for (let at = 0; isLaned && at < spans[edge]; at += 1) {
      layers[made] = layer[from] + 1 + at;
      places.push(made);
      made += 1;
    }
    [from, ...places].forEach((one, at) => links.push([one, places[at] ?? to]));
    return places;
  });
  return { count, size, layers, links, passed };
}

function neighboursOf({ size, links }) {
  const above = Array.from({ length: size }, () => []);
  const below = Array.from({ length: size }, () => []);
  for (const [from, to] of links) {
    below[from].push(to);
    above[to].push(from);
  }
  return { above, below };
}

/** The shapes of each layer, in the order in which a walk along the edges meets them. */
function firstRows({ size, layers, links }, loose) {
  const { above, below } = neighboursOf({ size, links });
  const seen = new Uint8Array(size);
  const rows = [];
  const visit = (first) => {
    const stack = [first];
    while (stack.length) {
      const one = stack.pop();
      if (seen[one]) continue;
      seen[one] = 1;
      (rows[layers[one]] ??= []).push(one);
      for (let at = below[one].length - 1; at >= 0; at -= 1) stack.push(below[one][at]);
    }
  };
  for (let i = 0; i < size; i += 1) if (!loose.has(i) && above[i].length === 0) visit(i);
  return Array.from(rows, (row) => row ?? []);
}

function reorder(rows, near, isDown, size) {
  const neighbours = isDown ? near.above : near.below;
  const place = new Float64Array(size);
  for (const row of rows) row.forEach((one, at) => (place[one] = at));
  const weight = new Float64Array(size);
  const order = isDown ? rows.keys() : [...rows.keys()].reverse();
  for (const at of order) {
    const row = rows[at];
    for (const one of row) weight[one] = mean(neighbours[one], place) ?? place[one];
    row.sort((one, other) => weight[one] - weight[other] || place[one] - place[other]);
    row.forEach((one, index) => (place[one] = index));
  }
}

function mean(indices, values) {
  if (indices.length === 0) return null;
  let sum = 0;
  for (const one of indices) sum += values[one];
  return sum / indices.length;
}

/** The middle of each shape and lane, from top to bottom. */
function placed(rows, near, { count, size }) {
  const height = (one) => (one < count ? BOX.height : LANE);
  const middle = new Float64Array(size);
  // How far below the first of its layer each stands at least.
  const depth = new Float64Array(size);
  for (const row of rows) {
    row.forEach((one, at) => {
      if (at === 0) return;
      const before = row[at - 1];
      const gap = one < count || before < count ? GAP.y : GAP.y / 3;
      depth[one] = depth[before] + (height(before) + height(one)) / 2 + gap;
    });
    const half = row.length ? depth[row[row.length - 1]] / 2 : 0;
    for (const one of row) middle[one] = depth[one] - half;
  }
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const isDown = sweep % 2 === 0;
    const neighbours = isDown ? near.above : near.below;
    for (const at of isDown ? rows.keys() : [...rows.keys()].reverse()) {
      const wanted = rows[at].map(
        (one) => (mean(neighbours[one], middle) ?? middle[one]) - depth[one],
      );
      ascending(wanted).forEach((value, index) => {
        const one = rows[at][index];
        middle[one] = Math.round(value) + depth[one];
      });
    }
  }
  return middle;
}

/** The ascending values that are nearest to these, by the sum of squares. */
export function ascending(values) {
  const sums = [];
  const sizes = [];
  for (const value of values) {
    let [sum, size] = [value, 1];
    while (sizes.length && sums[sums.length - 1] / sizes[sizes.length - 1] >= sum / size) {
      sum += sums.pop();
      size += sizes.pop();
    }
    sums.push(sum);
    sizes.push(size);
  }
  return sums.flatMap((sum, at) => new Array(sizes[at]).fill(sum / sizes[at]));
}

function finished(count, edges, graph, middle, loose) {
  const step = BOX.width + GAP.x;
  const isLoose = new Uint8Array(count);
  for (const one of loose) isLoose[one] = 1;
  let [top, bottom] = [Infinity, -Infinity];
  for (let i = 0; i < graph.size; i += 1) {
    if (i < count && isLoose[i]) continue;
    const half = (i < count ? BOX.height : LANE) / 2;
    top = Math.min(top, middle[i] - half);
    bottom = Math.max(bottom, middle[i] + half);
  }
  if (top > bottom) [top, bottom] = [0, -GAP.y];
  const x = new Float64Array(count);
  const y = new Float64Array(count);
  for (let i = 0; i < count; i += 1) {
    x[i] = graph.layers[i] * step;
    y[i] = middle[i] - BOX.height / 2 - top;
  }
  const columns = Math.max(1, Math.ceil(Math.sqrt(loose.length / 3)));
  loose.forEach((one, at) => {
    x[one] = (at % columns) * (BOX.width + GAP.y);
    y[one] = bottom - top + GAP.y + Math.floor(at / columns) * (BOX.height + GAP.y);
  });
  const points = graph.passed.map((places) =>
    places.map((one) => [graph.layers[one] * step + BOX.width / 2, middle[one] - top]),
  );
  const width = x.reduce((most, one) => Math.max(most, one + BOX.width), 0);
  const height = y.reduce((most, one) => Math.max(most, one + BOX.height), 0);
  return { x, y, layer: graph.layers.slice(0, count), width, height, points };
}
