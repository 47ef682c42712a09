// The part of a graph that stands up to so many hops above and below one node.

import { dependentsOf } from './collapse.js';

/** Indices in ascending order; at most `max`, the nearest first. */
export function neighbourhood(dependencies, centre, hops, max = 2_000) {
  const { start, to } = dependentsOf(dependencies);
  const taken = new Set([centre]);
  const walk = (nextOf) => {
    let edge = [centre];
    for (let hop = 0; hop < hops && taken.size < max; hop += 1) {
      const beyond = new Set();
      for (const one of edge) {
        for (const next of nextOf(one)) {
          if (taken.size >= max) break;
          if (!taken.has(next)) beyond.add(next);
          taken.add(next);
        }
      }
      edge = [...beyond];
    }
  };
  walk((one) => dependencies[one]);
  walk((one) => to.subarray(start[one], start[one + 1]));
  return [...taken].sort((one, other) => one - other);
}

/** The graph of these nodes only; `origin[i]` is what its node `i` is in the whole one. */
export function subgraph(graph, origin) {
  const place = new Map(origin.map((one, at) => [one, at]));
  const within = (indices) => indices.filter((one) => place.has(one)).map((one) => place.get(one));
  return {
    ids: origin.map((one) => graph.ids[one]),
    handlers: origin.map((one) => graph.handlers[one]),
    dependencies: origin.map((one) => within(graph.dependencies[one])),
    maps: new Set(within([...graph.maps])),
    finals: new Set(within([...graph.finals])),
    origin,
  };
}
