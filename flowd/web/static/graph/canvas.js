// Draw a laid-out graph as SVG: only what is in sight, and never more than DRAWN_MAX boxes.
//
// Where more would be in sight, all of them become one path a state. Panning moves one element.

import { BOX } from './layout.js';
import { Minimap } from './minimap.js';
import { edgePath, edgesInSight, shapesInSight } from './sight.js';
import { label, sentence } from './labels.js';
import { STATES } from './states.js';
import { svg } from './svg.js';

const DRAWN_MAX = 140;
const EDGES_MAX = 600;
const MINIMAP_MS = 60;
const SCALE = { min: 0.02, max: 2, readable: 0.78, ofFew: 0.5 };
/** So few shapes are all in sight at first, smaller than they are read best. */
const FEW = 16;
const MARGIN = 24;

export class GraphCanvas {
  /** Draws into `host`; tells `onChoose(shape)` of a click or Enter, `onLook(shape)` of the arrows. */
  constructor(host, { onChoose = () => {}, onLook = () => {} } = {}) {
    Object.assign(this, { host, onChoose, onLook });
    this.view = { x: 0, y: 0, scale: 1 };
    this.graph = null;
    this.drawn = new Map();
    this.chosen = -1;
    this.isDue = false;
    // Until somebody moves it, it fits whatever room there is.
    this.isFitted = true;
    this.edges = svg('path', { class: 'g-edges' });
    this.arrows = svg('path', { class: 'g-arrows' });
    this.hot = svg('path', { class: 'g-hot' });
    this.boxes = svg('g');
    this.dots = STATES.map(({ cls }) => svg('path', { class: `g-dots ${cls}` }));
    this.world = svg('g', {}, this.edges, this.arrows, this.hot, ...this.dots, this.boxes);
    this.svg = svg('svg', { class: 'g-canvas', 'aria-hidden': 'false' }, this.world);
    this.minimap = new Minimap((x, y) => this.centreOn(x, y));
    host.append(this.svg, this.minimap.svg);
    this.sizes = new ResizeObserver(() => this.#resized());
    this.sizes.observe(host);
    this.#listen();
  }

  close() {
    clearTimeout(this.timer);
    this.sizes.disconnect();
    this.host.replaceChildren();
  }

  /** Show the Drawing `graph`, as the worker answered it, in the states of `tally`.
   * `nodes` has their `ids` and `handlers`, `items` the bar of a map as pairs
   * [code, count]; a dry graph has no states yet. */
  show(graph, tally, nodes, { items = new Map(), isDry = false } = {}) {
    Object.assign(this, { graph, tally, nodes, items, isDry, chosen: -1 });
    for (const element of this.drawn.values()) element.remove();
    this.drawn.clear();
    this.#drawMinimap();
    this.#measure();
    this.fit();
  }

  /** Draw anew what shows one of these shapes. */
  refresh(changed) {
    if (!this.graph || changed.size === 0) return;
    for (const at of changed) {
      const element = this.drawn.get(at);
      if (element) element.replaceWith(this.#boxed(at));
    }
    if (this.isFar) this.#drawDots();
    this.#drawMinimap();
  }

  /** A little later, in a task of its own: what is in sight comes first. */
  #drawMinimap() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      if (this.minimap.graph === this.graph) this.minimap.refresh(this.tally);
      else this.minimap.show(this.graph, this.tally);
      this.minimap.look(this.#sight());
    }, MINIMAP_MS);
  }

  choose(shape, { isSeen = false } = {}) {
    this.chosen = shape;
    for (const [at, element] of this.drawn) element.classList.toggle('is-chosen', at === shape);
    this.#tell();
    if (shape >= 0 && !isSeen) this.reveal(shape);
    else this.#drawHot();
  }

  /** Everything, if it stays readable so; else what needs a look most, or the beginning. */
  fit({ isWhole = false } = {}) {
    this.isFitted = !isWhole;
    const { width, height } = this.graph;
    const room = { x: this.room.width - 2 * MARGIN, y: this.room.height - 2 * MARGIN };
    const scale = Math.min(room.x / width, room.y / height, 1);
    const isReadable = isWhole || scale >= (this.graph.count <= FEW ? SCALE.ofFew : SCALE.readable);
    this.view.scale = Math.max(SCALE.min, isReadable ? scale : 0.85);
    if (isReadable) this.centreOn(width / 2, height / 2);
    else this.reveal(this.#foremost(), { isMiddle: true });
  }

  zoom(factor, at = { x: this.room.width / 2, y: this.room.height / 2 }) {
    const { view } = this;
    this.isFitted = false;
    const scale = Math.min(SCALE.max, Math.max(SCALE.min, view.scale * factor));
    view.x = at.x - ((at.x - view.x) * scale) / view.scale;
    view.y = at.y - ((at.y - view.y) * scale) / view.scale;
    view.scale = scale;
    this.#draw();
  }

  centreOn(x, y) {
    this.view.x = this.room.width / 2 - x * this.view.scale;
    this.view.y = this.room.height / 2 - y * this.view.scale;
    this.#draw();
  }

  /** Move until `shape` is in sight. */
  reveal(shape, { isMiddle = false } = {}) {
    const { graph, view, room } = this;
    if (view.scale < SCALE.readable) view.scale = 0.85;
    const [x, y] = [graph.x[shape] + BOX.width / 2, graph.y[shape] + BOX.height / 2];
    const [at, up] = [view.x + x * view.scale, view.y + y * view.scale];
    const [across, down] = [BOX.width * 0.7 * view.scale, BOX.height * view.scale];
    const isInside = at > across && at < room.width - across && up > down && up < room.height - down;
    if (isInside && !isMiddle) this.#draw();
    else this.centreOn(x, y);
  }

  #foremost() {
    let [best, code] = [0, STATES.length];
    for (let at = 0; at < this.graph.count; at += 1) {
      const leading = this.tally.leading(at);
      if (leading < code) [best, code] = [at, leading];
    }
    return code < 5 ? best : 0;
  }

  #measure() {
    const { clientWidth, clientHeight } = this.host;
    this.room = { width: clientWidth || 800, height: clientHeight || 500 };
  }

  #resized() {
    this.#measure();
    if (!this.graph) return;
    if (!this.isFitted) this.#draw();
    else this.fit();
    if (this.chosen >= 0) this.reveal(this.chosen);
  }

  #draw() {
    this.world.setAttribute(
      'transform',
      `translate(${this.view.x} ${this.view.y}) scale(${this.view.scale})`,
    );
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      if (this.graph) this.#drawSight();
    });
  }

  #sight() {
    const { view, room } = this;
    const [left, top] = [-view.x / view.scale, -view.y / view.scale];
    return { left, top, right: left + room.width / view.scale, bottom: top + room.height / view.scale };
  }

  #drawSight() {
    const sight = this.#sight();
    const seen = shapesInSight(this.graph, sight, DRAWN_MAX);
    this.isFar = seen === null;
    for (const [at, element] of this.drawn) {
      if (seen?.has(at)) continue;
      element.remove();
      this.drawn.delete(at);
    }
    for (const at of seen ?? []) if (!this.drawn.has(at)) this.boxes.append(this.#boxed(at));
    this.#drawDots();
    const { lines, arrows, count } = edgesInSight(this.graph, sight, EDGES_MAX);
    // A thicket stays in the background.
    this.edges.setAttribute('opacity', Math.min(1, Math.max(0.12, 90 / count)));
    this.edges.setAttribute('d', lines);
    this.arrows.setAttribute('d', this.isFar ? '' : arrows);
    this.#drawHot();
    if (this.minimap.graph === this.graph) this.minimap.look(sight);
    this.#tell();
  }

  #drawDots() {
    const paths = this.dots.map(() => []);
    if (this.isFar) {
      const { x, y, count } = this.graph;
      for (let at = 0; at < count; at += 1) {
        paths[this.tally.leading(at)].push(`M${x[at]} ${y[at]}h${BOX.width}v${BOX.height}h-${BOX.width}z`);
      }
    }
    paths.forEach((path, code) => this.dots[code].setAttribute('d', path.join('')));
  }

  #drawHot() {
    const { graph, chosen } = this;
    const paths = [];
    for (let edge = 0; chosen >= 0 && edge < graph.edgeCount; edge += 1) {
      const isOf = graph.from[edge] === chosen || graph.to[edge] === chosen;
      if (isOf) paths.push(edgePath(graph, edge));
    }
    this.hot.setAttribute('d', paths.slice(0, EDGES_MAX).join(''));
  }

  #boxed(at) {
    const shape = this.graph.shape(at);
    const { width, height } = BOX;
    const code = this.tally.leading(at);
    const state = STATES[code];
    const box = svg('g', {
      id: `shape-${at}`,
      class: `g-box ${state.cls}${at === this.chosen ? ' is-chosen' : ''}`,
      transform: `translate(${this.graph.x[at]} ${this.graph.y[at]})`,
      role: 'graphics-symbol',
      'aria-label': sentence(shape, this.nodes, this.tally, at),
    });
    box.dataset.shape = at;
    if (shape.members.length > 1) box.append(svg('rect', { class: 'g-stack', x: 4, y: 4, width, height, rx: 6 }));
    box.append(svg('rect', { class: 'g-face', width, height, rx: 6 }));
    const { title, sub } = label(shape, this.nodes, this.isDry ? null : this.tally, at);
    box.append(...glyph(state));
    box.append(svg('text', { class: 'g-title', x: 30, y: 18 }, title));
    box.append(svg('text', { class: 'g-sub', x: 30, y: 33 }, sub));
    const parts = this.items.get(shape.members[0]) ?? (shape.members.length > 1 ? this.tally.of(at) : []);
    if (parts.length) box.append(...bar(parts));
    this.drawn.set(at, box);
    return box;
  }

  /** Say to assistive technology where the arrows have come to. */
  #tell() {
    const { host, chosen } = this;
    if (chosen >= 0 && this.drawn.has(chosen)) host.setAttribute('aria-activedescendant', `shape-${chosen}`);
    else host.removeAttribute('aria-activedescendant');
  }

  #listen() {
    const { host } = this;
    host.addEventListener('wheel', (event) => {
      if (!this.graph) return;
      event.preventDefault();
      this.isFitted = false;
      const { left, top } = host.getBoundingClientRect();
      if (event.ctrlKey) {
        this.zoom(Math.exp(-event.deltaY / 200), { x: event.clientX - left, y: event.clientY - top });
        return;
      }
      this.view.x -= event.shiftKey ? event.deltaY : event.deltaX;
      this.view.y -= event.shiftKey ? 0 : event.deltaY;
      this.#draw();
    }, { passive: false });
    host.addEventListener('pointerdown', (event) => this.#grab(event));
    host.addEventListener('keydown', (event) => this.#key(event));
  }

  #grab(event) {
    if (event.button !== 0 || !this.graph || this.minimap.svg.contains(event.target)) return;
    const from = { x: event.clientX, y: event.clientY, ...{ left: this.view.x, top: this.view.y } };
    const at = event.target.closest?.('.g-box')?.dataset.shape;
    let isMoved = false;
    const follow = (move) => {
      const [x, y] = [move.clientX - from.x, move.clientY - from.y];
      isMoved ||= Math.hypot(x, y) > 4;
      if (!isMoved) return;
      this.isFitted = false;
      this.host.classList.add('is-grabbed');
      [this.view.x, this.view.y] = [from.left + x, from.top + y];
      this.#draw();
    };
    const drop = () => {
      window.removeEventListener('pointermove', follow);
      this.host.classList.remove('is-grabbed');
      if (isMoved || at === undefined) return;
      this.choose(Number(at), { isSeen: true });
      this.onChoose(Number(at));
    };
    window.addEventListener('pointermove', follow);
    window.addEventListener('pointerup', drop, { once: true });
    window.addEventListener('pointercancel', () => window.removeEventListener('pointermove', follow), { once: true });
  }

  #key(event) {
    if (!this.graph || event.altKey || event.ctrlKey || event.metaKey) return;
    const acts = {
      ArrowRight: () => this.#step(1),
      ArrowLeft: () => this.#step(-1),
      ArrowDown: () => this.#beside(1),
      ArrowUp: () => this.#beside(-1),
      Home: () => this.#look(0),
      Enter: () => this.chosen >= 0 && this.onChoose(this.chosen),
      '+': () => this.zoom(1.25),
      '-': () => this.zoom(0.8),
      0: () => this.fit({ isWhole: true }),
    };
    if (!Object.hasOwn(acts, event.key)) return;
    event.preventDefault();
    acts[event.key]();
  }

  #look(shape) {
    this.choose(shape);
    this.onLook(shape);
  }

  /** Along an edge: to the dependent, or the dependency, that stands nearest. */
  #step(direction) {
    const { graph, chosen } = this;
    if (chosen < 0) return this.#look(this.#foremost());
    let best = -1;
    for (let edge = 0; edge < graph.edgeCount; edge += 1) {
      const [from, to] = [graph.from[edge], graph.to[edge]];
      const [here, there] = direction > 0 ? [from, to] : [to, from];
      if (here !== chosen) continue;
      const isNearer = best < 0 || this.#away(there) < this.#away(best);
      if (isNearer) best = there;
    }
    return best >= 0 && this.#look(best);
  }

  #away(shape) {
    const { x, y } = this.graph;
    return Math.hypot(x[shape] - x[this.chosen], y[shape] - y[this.chosen]);
  }

  /** To the next shape of the same layer. */
  #beside(direction) {
    const { graph, chosen } = this;
    if (chosen < 0) return this.#look(this.#foremost());
    let best = -1;
    for (let at = 0; at < graph.count; at += 1) {
      if (graph.x[at] !== graph.x[chosen] || at === chosen) continue;
      const down = (graph.y[at] - graph.y[chosen]) * direction;
      if (down > 0 && (best < 0 || down < (graph.y[best] - graph.y[chosen]) * direction)) best = at;
    }
    return best >= 0 && this.#look(best);
  }
}

function glyph({ shape, glyph: line, solid, dashed, filled }) {
  const place = { transform: 'translate(9 6)' };
  const dash = dashed ? { 'stroke-dasharray': '2 1.6' } : {};
  const parts = [svg('path', { ...place, ...dash, class: solid ? 'glyph-solid' : 'glyph-shape', d: shape })];
  const cls = solid ? 'glyph-on' : filled ? 'glyph-fill' : 'glyph-line';
  if (line) parts.push(svg('path', { ...place, class: cls, d: line }));
  return parts;
}

/** One bar, its parts as wide as their counts, none too narrow to see. */
function bar(parts) {
  const [left, room] = [30, BOX.width - 38];
  const total = parts.reduce((sum, [, count]) => sum + count, 0);
  const least = Math.min(3, room / parts.length);
  const spare = room - least * parts.length;
  let x = left;
  return parts.map(([code, count]) => {
    const width = least + (spare * count) / total;
    const part = svg('rect', { class: `g-part ${STATES[code].cls}`, x, y: BOX.height - 6, width, height: 3 });
    x += width;
    return part;
  });
}
