// What of a laid-out graph is in sight, and the paths of its edges.

import { BOX } from './layout.js';

/** The shapes that touch `sight`, or null if they are more than `max`. */
export function shapesInSight({ count, x, y }, sight, max) {
  const seen = new Set();
  for (let at = 0; at < count; at += 1) {
    if (x[at] > sight.right || x[at] + BOX.width < sight.left) continue;
    if (y[at] > sight.bottom || y[at] + BOX.height < sight.top) continue;
    seen.add(at);
    if (seen.size > max) return null;
  }
  return seen;
}

/** The lines and the arrow heads of the edges whose ends frame `sight`; `max` of them at most. */
export function edgesInSight(graph, sight, max) {
  const { edgeCount, x, y } = graph;
  const [lines, arrows] = [[], []];
  for (let edge = 0; edge < edgeCount && lines.length < max; edge += 1) {
    const [from, to] = [graph.from[edge], graph.to[edge]];
    if (x[from] > sight.right || x[to] < sight.left) continue;
    if (Math.min(y[from], y[to]) > sight.bottom) continue;
    if (Math.max(y[from], y[to]) + BOX.height < sight.top) continue;
    lines.push(edgePath(graph, edge));
    arrows.push(`M${x[to]} ${y[to] + BOX.height / 2}l-7 -3.5v7z`);
  }
  return { lines: lines.join(''), arrows: arrows.join(''), count: lines.length };
}

/** From the right of one box to the left of another, through its lanes, in level curves. */
export function edgePath(graph, edge) {
  const { x, y } = graph;
  const [from, to] = [graph.from[edge], graph.to[edge]];
  let [at, up] = [x[from] + BOX.width, y[from] + BOX.height / 2];
  const path = [`M${at} ${up}`];
  const reach = BOX.width / 2;
  const bend = (toX, toY) => {
    const half = (at + toX) / 2;
    path.push(toY === up ? `H${toX}` : `C${half} ${up} ${half} ${toY} ${toX} ${toY}`);
    [at, up] = [toX, toY];
  };
  for (const [middle, height] of graph.bendsOf(edge)) {
    bend(middle - reach, height);
    path.push(`H${middle + reach}`);
    at = middle + reach;
  }
  bend(x[to] - 5, y[to] + BOX.height / 2);
  return path.join('');
}
