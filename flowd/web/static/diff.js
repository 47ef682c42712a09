// What differs between two texts, line by line: Myers 1986, bounded.
const EDITS_MAX = 2_000;

/** [[' ' | '-' | '+', line], …]; where too much differs, all of the old and then all of the new. */
export function diffLines(before, after) {
  const a = before.split('\n');
  const b = after.split('\n');
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail += 1;
  const middle = edits(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  return [...a.slice(0, head).map(line => [' ', line]), ...middle, ...a.slice(a.length - tail).map(line => [' ', line])];
}

function edits(a, b) {
  const traces = [];
  let furthest = new Map([[1, 0]]);
  for (let d = 0; d <= Math.min(a.length + b.length, EDITS_MAX); d += 1) {
    traces.push(furthest);
    const next = new Map(furthest);
    for (let k = -d; k <= d; k += 2) {
      let x = k === -d || (k !== d && (next.get(k - 1) ?? -1) < (next.get(k + 1) ?? -1)) ? next.get(k + 1) ?? 0 : (next.get(k - 1) ?? 0) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x += 1;
      next.set(k, x);
      if (x >= a.length && x - k >= b.length) return walk(traces, a, b);
    }
    furthest = next;
  }
  return [...a.map(line => ['-', line]), ...b.map(line => ['+', line])];
}

function walk(traces, a, b) {
  const found = [];
  let x = a.length;
  let y = b.length;
  for (let d = traces.length - 1; d >= 0; d -= 1) {
    const trace = traces[d];
    const k = x - y;
    const from = k === -d || (k !== d && (trace.get(k - 1) ?? -1) < (trace.get(k + 1) ?? -1)) ? k + 1 : k - 1;
    const fromX = trace.get(from) ?? 0;
    const fromY = fromX - from;
    while (x > fromX && y > fromY && x > 0 && y > 0) {
      x -= 1;
      y -= 1;
      found.push([' ', a[x]]);
    }
    if (d === 0) break;
    if (x === fromX) found.push(['+', b[(y -= 1)]]);
    else found.push(['-', a[(x -= 1)]]);
  }
  return found.reverse();
}

const AROUND = 3;

/** Only what differs and the lines around it; `null` stands for lines that were left out. */
export function hunks(lines) {
  const near = new Set();
  lines.forEach(([kind], at) => {
    if (kind !== ' ') for (let one = at - AROUND; one <= at + AROUND; one += 1) near.add(one);
  });
  const found = [];
  lines.forEach((line, at) => {
    if (near.has(at)) found.push(line);
    else if (found.length && found.at(-1) !== null) found.push(null);
  });
  if (found.at(-1) === null) found.pop();
  return found;
}
