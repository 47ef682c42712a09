// The states of the nodes of one execution, as letters, counted shape by shape.

import { STATES as LOOKS } from '../states.js';

// What needs a look most comes first.
const LETTERS = {
  F: 'FAILED', T: 'RETRYING', W: 'WAITING', R: 'RUNNING', Q: 'QUEUED', U: 'UPSTREAM',
  P: 'PENDING', X: 'CANCELLED', S: 'SKIPPED', C: 'COMPLETED', '?': 'CORRUPT',
};

export const STATES = Object.entries(LETTERS).map(([letter, name]) => ({ letter, name, ...LOOKS[name] }));
export const CODE_OF = Object.fromEntries(STATES.map(({ name }, code) => [name, code]));

const UNKNOWN = STATES.length - 1;
const CODES = new Uint8Array(128).fill(UNKNOWN);
STATES.forEach(({ letter }, code) => { CODES[letter.charCodeAt(0)] = code; });

/** The code of a letter: its place in STATES. */
export function codeOf(letter) {
  return CODES[letter.charCodeAt(0) & 127];
}

export class Tally {
  /** `shapeOf[i]` is the shape of node `i`, of `shapes` in all, or negative if none shows it. */
  constructor(shapeOf, shapes) {
    this.shapeOf = shapeOf;
    this.codes = new Uint8Array(shapeOf.length).fill(UNKNOWN);
    this.counts = new Int32Array(shapes * STATES.length);
    this.totals = new Int32Array(STATES.length);
    for (const shape of shapeOf) if (shape >= 0) this.counts[shape * STATES.length + UNKNOWN] += 1;
    this.totals[UNKNOWN] = shapeOf.length;
  }

  /** Take over `letters`, one a node; answers the shapes of which something changed. */
  apply(letters) {
    const { codes, counts, totals, shapeOf } = this;
    const changed = new Set();
    const count = Math.min(letters.length, codes.length);
    for (let i = 0; i < count; i += 1) {
      const code = CODES[letters.charCodeAt(i) & 127];
      const before = codes[i];
      if (code === before) continue;
      codes[i] = code;
      totals[before] -= 1;
      totals[code] += 1;
      const base = shapeOf[i] * STATES.length;
      if (base < 0) continue;
      counts[base + before] -= 1;
      counts[base + code] += 1;
      changed.add(shapeOf[i]);
    }
    return changed;
  }

  /** What one shape says first: the code of its state that needs a look most. */
  leading(shape) {
    const base = shape * STATES.length;
    for (let code = 0; code < STATES.length; code += 1) if (this.counts[base + code]) return code;
    return UNKNOWN;
  }

  /** Pairs [code, count] of one shape, what needs a look most first. */
  of(shape) {
    const base = shape * STATES.length;
    const found = [];
    for (let code = 0; code < STATES.length; code += 1) {
      if (this.counts[base + code]) found.push([code, this.counts[base + code]]);
    }
    return found;
  }
}
