// The whole graph in a corner, one path a state, and where in it the sight is.

import { BOX } from './layout.js';
import { STATES } from './states.js';
import { svg } from './svg.js';

const ROOM = { width: 168, height: 96 };

export class Minimap {
  constructor(onPoint) {
    this.paths = STATES.map(({ cls }) => svg('path', { class: `g-dots ${cls}` }));
    this.frame = svg('rect', { class: 'g-frame' });
    const onTop = [...this.paths].reverse();
    this.svg = svg('svg', { class: 'g-minimap is-idle', 'aria-hidden': 'true' }, ...onTop, this.frame);
    this.svg.addEventListener('pointerdown', (event) => {
      const { left, top } = this.svg.getBoundingClientRect();
      onPoint((event.clientX - left) / this.scale, (event.clientY - top) / this.scale);
    });
  }

  show(graph, tally) {
    this.graph = graph;
    this.scale = Math.min(ROOM.width / graph.width, ROOM.height / graph.height);
    this.svg.setAttribute('width', Math.max(24, graph.width * this.scale));
    this.svg.setAttribute('height', Math.max(16, graph.height * this.scale));
    this.refresh(tally);
  }

  refresh(tally) {
    const { graph, scale } = this;
    const [width, height] = [Math.max(1, BOX.width * scale), Math.max(1, BOX.height * scale)];
    const paths = STATES.map(() => []);
    const taken = new Map();
    for (let at = 0; at < graph.count; at += 1) {
      const [x, y] = [Math.round(graph.x[at] * scale), Math.round(graph.y[at] * scale)];
      const code = tally.leading(at);
      // Of those that fall on one point, the one that needs a look most is seen.
      const before = taken.get(x * 1000 + y);
      if (before === undefined || code < before) taken.set(x * 1000 + y, code);
    }
    for (const [point, code] of taken) {
      const [x, y] = [Math.floor(point / 1000), point % 1000];
      paths[code].push(`M${x} ${y}h${width.toFixed(1)}v${height.toFixed(1)}h-${width.toFixed(1)}z`);
    }
    paths.forEach((path, code) => this.paths[code].setAttribute('d', path.join('')));
  }

  /** Frame what is in sight; where that is everything, there is nothing to tell. */
  look({ left, top, right, bottom }) {
    const { graph, scale } = this;
    const isAll = left <= 0 && top <= 0 && right >= graph.width && bottom >= graph.height;
    this.svg.classList.toggle('is-idle', isAll);
    const [x, y] = [Math.max(0, left), Math.max(0, top)];
    this.frame.setAttribute('x', x * scale);
    this.frame.setAttribute('y', y * scale);
    this.frame.setAttribute('width', Math.max(4, (Math.min(right, graph.width) - x) * scale));
    this.frame.setAttribute('height', Math.max(4, (Math.min(bottom, graph.height) - y) * scale));
  }
}
