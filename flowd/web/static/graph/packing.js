// A laid-out graph as columns: ten thousand small objects would take the page's thread to receive.

const KINDS = ['node', 'run', 'group', 'runs'];

/** The columns, and what of them can be handed over without a copy. */
export function packed({ shapes, edges, shapeOf, origin, points, ...places }) {
  const start = new Int32Array(shapes.length + 1);
  shapes.forEach((shape, at) => (start[at + 1] = start[at] + shape.members.length));
  const members = new Int32Array(start[shapes.length]);
  shapes.forEach((shape, at) => members.set(shape.members, start[at]));
  const bends = new Int32Array(edges.length + 1);
  points.forEach((some, edge) => (bends[edge + 1] = bends[edge] + some.length));
  const columns = {
    ...places,
    shapeOf,
    start,
    members,
    kind: Uint8Array.from(shapes, (shape) => KINDS.indexOf(shape.kind)),
    size: Int32Array.from(shapes, (shape) => shape.size),
    isMixed: Uint8Array.from(shapes, (shape) => (shape.isMixed ? 1 : 0)),
    from: Int32Array.from(edges, ([from]) => from),
    to: Int32Array.from(edges, ([, to]) => to),
    bends,
    bendAt: Float64Array.from(points.flat(2)),
  };
  const buffers = Object.values(columns).filter((one) => ArrayBuffer.isView(one)).map((one) => one.buffer);
  return { columns: { ...columns, origin }, buffers };
}

/** Looks like what was packed; `members` are the indices of nodes in the whole graph. */
export class Drawing {
  constructor(columns) {
    Object.assign(this, columns);
    this.count = columns.kind.length;
    this.edgeCount = columns.from.length;
  }

  shape(at) {
    const members = this.members.subarray(this.start[at], this.start[at + 1]);
    return { kind: KINDS[this.kind[at]], members, size: this.size[at], isMixed: this.isMixed[at] === 1 };
  }

  /** The places [x, y] that the line of an edge passes between its ends. */
  bendsOf(edge) {
    const places = [];
    for (let at = this.bends[edge]; at < this.bends[edge + 1]; at += 1) {
      places.push([this.bendAt[2 * at], this.bendAt[2 * at + 1]]);
    }
    return places;
  }
}
