// What the graph's modules promise, checked in the page: each function answers what is wrong.
// One expression, so that the test can hand it to the page as it stands.
async ({ name, given }) => {
const base = document.querySelector('script[type=module]').src;
const load = name => import(new URL(`graph/${name}.js`, base).href);
function numbers(seed) {
  return () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
}
const graph = (dependencies, handlers, { maps = [], finals = [] } = {}) => ({
  ids: dependencies.map((_, at) => `n${at}`),
  handlers: handlers ?? dependencies.map(() => 'noop'),
  dependencies, maps: new Set(maps), finals: new Set(finals),
});
/** Of any size and shape; nodes only depend on earlier ones. */
function anyGraph(seed) {
  const next = numbers(seed);
  const pick = most => Math.floor(next() * most);
  const dependencies = [];
  while (dependencies.length < 2 + pick(8) * pick(60)) {
    const size = dependencies.length;
    const above = new Set(Array.from({ length: size ? pick(3) : 0 }, () => pick(size)));
    const kind = pick(4);
    if (kind === 0) for (let i = 0; i < pick(30); i += 1) dependencies.push([...above]);
    else if (kind === 1) for (let i = 0; i < pick(30); i += 1) dependencies.push(dependencies.length ? [dependencies.length - 1] : []);
    else if (kind === 2 && size) dependencies.push(Array.from({ length: Math.min(size, 9) }, (_, i) => size - 1 - i));
    else dependencies.push([...above]);
  }
  const handlers = dependencies.map(() => ['noop', 'noop', 'noop', 'shell', 'signal'][pick(5)]);
  const isLast = at => !dependencies.some(some => some.includes(at));
  const finals = next() < 0.3 ? [dependencies.length - 1].filter(at => isLast(at) && !dependencies[at].length) : [];
  return graph(dependencies, handlers, { maps: dependencies.flatMap((_, at) => (pick(9) ? [] : [at])), finals });
}

const SAMPLES = {
  fan: [[], ...Array(9998).fill([0]), Array.from({ length: 9998 }, (_, i) => i + 1)],
  chain: Array.from({ length: 10000 }, (_, i) => (i ? [i - 1] : [])),
  lanes: Array.from({ length: 10000 }, (_, i) => (i % 100 ? [i - 1] : [])),
  small: [[], [0], [0], [0], [0], [1, 2, 3, 4]],
};

const properties = {
  async laidOut(given) {
    const { collapse } = await load('collapse');
    const { layOut, BOX } = await load('layout');
    const wrong = [];
    for (let seed = 1; seed <= given; seed += 1) {
      const drawn = anyGraph(seed);
      const whole = seed % 2 ? 0 : 40;
      const { shapes, edges } = collapse(drawn, { whole });
      const finals = new Set(shapes.flatMap((one, at) => (one.isFinal ? [at] : [])));
      const { x, y, width, height, points } = layOut(shapes.length, edges, finals);
      const say = what => wrong.push(`seed ${seed}: ${what}`);
      if (edges.some(([from, to]) => x[from] + BOX.width >= x[to])) say('an edge does not point forward');
      if (points.some(some => some.some(([at], i) => i && at <= some[i - 1][0]))) say('a line turns back');
      const order = [...shapes.keys()].sort((one, other) => y[one] - y[other]);
      order.forEach((one, at) => {
        for (const other of order.slice(at + 1)) {
          if (y[other] >= y[one] + BOX.height) break;
          if (Math.abs(x[one] - x[other]) < BOX.width) say(`${one} and ${other} overlap`);
        }
      });
      if (shapes.some((_, at) => !(x[at] >= 0 && y[at] >= 0 && x[at] + BOX.width <= width && y[at] + BOX.height <= height))) say('outside');
      for (const one of finals) if (shapes.some((_, at) => !finals.has(at) && edges.flat().includes(at) && x[at] >= x[one])) say('finally is not last');
      const again = collapse(anyGraph(seed), { whole });
      const places = layOut(again.shapes.length, again.edges, finals);
      if (JSON.stringify([again.shapes, [...places.x], [...places.y]]) !== JSON.stringify([shapes, [...x], [...y]])) say('not the same again');
    }
    return wrong;
  },
  async folded(given) {
    const { collapse } = await load('collapse');
    const wrong = [];
    for (let seed = 1; seed <= given; seed += 1) {
      const drawn = anyGraph(seed);
      const { shapes, shapeOf, edges } = collapse(drawn, { whole: 0 });
      const say = what => wrong.push(`seed ${seed}: ${what}`);
      const members = shapes.flatMap(one => one.members);
      if (members.length !== drawn.ids.length || new Set(members).size !== members.length) say('nodes are lost, or twice there');
      shapes.forEach((one, at) => one.members.forEach(node => shapeOf[node] === at || say('in another shape')));
      const linked = new Set(edges.map(edge => edge.join()));
      drawn.dependencies.forEach((above, node) => above.forEach(one => {
        if (shapeOf[one] !== shapeOf[node] && !linked.has(`${shapeOf[one]},${shapeOf[node]}`)) say('an edge is lost');
      }));
      const below = drawn.ids.map((_, node) => drawn.dependencies.flatMap((above, one) => (above.includes(node) ? [one] : [])).join());
      for (const one of shapes) {
        const signs = one.members.map(node => [drawn.handlers[node], drawn.maps.has(node), [...drawn.dependencies[node]].sort().join(), below[node]].join('|'));
        if (one.kind === 'group' && new Set(signs).size > 1) say('a group of unlike nodes');
        if (one.kind === 'run' && one.members.some((node, at) => at && drawn.dependencies[node].join() !== String(one.members[at - 1]))) say('a run that is none');
      }
    }
    return wrong;
  },
  async shapesOf(given) {
    const { collapse } = await load('collapse');
    return collapse(graph(SAMPLES[given])).shapes.map(one => `${one.kind} × ${one.members.length}`);
  },
  async notable(given) {
    const { collapse } = await load('collapse');
    const handlers = Array.from({ length: 60 }, (_, i) => (i === 20 ? 'signal' : 'noop'));
    const drawn = graph(handlers.map((_, i) => (i ? [i - 1] : [])), handlers, { maps: [40] });
    return collapse(drawn).shapes.map(one => `${one.kind} ${one.members[0]}`);
  },
  async counted(given) {
    const { collapse } = await load('collapse');
    const { Tally, STATES, codeOf } = await load('states');
    const wrong = [];
    for (let seed = 1; seed <= given; seed += 1) {
      const drawn = anyGraph(seed);
      const { shapes, shapeOf } = collapse(drawn, { whole: 0 });
      const tally = new Tally(shapeOf, shapes.length);
      const next = numbers(seed);
      let before = '?'.repeat(drawn.ids.length);
      for (let round = 0; round < 4; round += 1) {
        const letters = [...before].map(one => (next() < 0.5 ? one : STATES[Math.floor(next() * STATES.length)].letter)).join('');
        const changed = tally.apply(letters);
        shapes.forEach((shape, at) => {
          const counts = new Map();
          for (const node of shape.members) counts.set(codeOf(letters[node]), (counts.get(codeOf(letters[node])) ?? 0) + 1);
          const expected = [...counts].sort(([one], [other]) => one - other);
          if (JSON.stringify(tally.of(at)) !== JSON.stringify(expected)) wrong.push(`seed ${seed}: shape ${at}`);
          if (tally.leading(at) !== expected[0][0]) wrong.push(`seed ${seed}: leading of ${at}`);
          const isChanged = shape.members.some(node => letters[node] !== before[node]);
          if (changed.has(at) !== isChanged) wrong.push(`seed ${seed}: changed ${at}`);
        });
        before = letters;
      }
    }
    return wrong;
  },
  async focused(given) {
    const { neighbourhood, subgraph } = await load('neighbourhood');
    const wrong = [];
    for (let seed = 1; seed <= given; seed += 1) {
      const drawn = anyGraph(seed);
      const centre = seed % drawn.ids.length;
      const hops = 1 + (seed % 4);
      const reach = isStep => {
        let found = new Set([centre]);
        for (let hop = 0; hop < hops; hop += 1) {
          found = new Set([...found, ...drawn.ids.keys()].filter(one => found.has(one) || [...found].some(other => isStep(other, one))));
        }
        return found;
      };
      const up = reach((from, one) => drawn.dependencies[from].includes(one));
      const down = reach((from, one) => drawn.dependencies[one].includes(from));
      const expected = [...drawn.ids.keys()].filter(one => up.has(one) || down.has(one));
      const origin = neighbourhood(drawn.dependencies, centre, hops);
      if (JSON.stringify(origin) !== JSON.stringify(expected)) wrong.push(`seed ${seed}: ${origin} for ${expected}`);
      const part = subgraph(drawn, origin);
      part.dependencies.forEach((above, at) => {
        const whole = drawn.dependencies[origin[at]].filter(one => origin.includes(one));
        if (JSON.stringify(above.map(one => origin[one])) !== JSON.stringify(whole)) wrong.push(`seed ${seed}: edges`);
      });
    }
    return wrong;
  },
  async packedAgain(given) {
    const { collapse } = await load('collapse');
    const { layOut } = await load('layout');
    const { packed, Drawing } = await load('packing');
    const wrong = [];
    for (let seed = 1; seed <= given; seed += 1) {
      const { shapes, edges, shapeOf } = collapse(anyGraph(seed), { whole: 0 });
      const places = layOut(shapes.length, edges);
      const { columns, buffers } = packed({ shapes, edges, shapeOf, origin: null, ...places });
      const drawing = new Drawing(structuredClone(columns, { transfer: buffers }));
      const said = shapes.map(({ kind, members, size, isMixed }) => ({ kind, members, size, isMixed }));
      const got = shapes.map((_, at) => ({ ...drawing.shape(at), members: [...drawing.shape(at).members] }));
      if (JSON.stringify(got) !== JSON.stringify(said)) wrong.push(`seed ${seed}: shapes`);
      if (JSON.stringify(edges.map((_, edge) => drawing.bendsOf(edge))) !== JSON.stringify(places.points)) wrong.push(`seed ${seed}: bends`);
    }
    return wrong;
  },
};
return properties[name](given);
}
