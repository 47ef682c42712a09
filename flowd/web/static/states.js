// Every state as word, glyph and shape: colour only repeats what these say. Paths in a box of 16 × 16.
const ring = 'M8 1.75a6.25 6.25 0 1 1 0 12.5a6.25 6.25 0 0 1 0-12.5z';
const octagon = 'M5.4 1.75h5.2l3.65 3.65v5.2l-3.65 3.65H5.4L1.75 10.6V5.4z';
const diamond = 'M8 1.2L14.8 8L8 14.8L1.2 8z';
const square = 'M2.75 2.75h10.5v10.5H2.75z';

/** `shape` is drawn first, filled where `solid`; `glyph` is a line upon it. */
export const STATES = {
  COMPLETED: { word: 'Completed', cls: 's-completed', shape: ring, solid: true, glyph: 'M5 8.2l2.1 2.1L11 6' },
  FAILED: { word: 'Failed', cls: 's-failed', shape: octagon, solid: true, glyph: 'M5.7 5.7l4.6 4.6M10.3 5.7l-4.6 4.6' },
  UPSTREAM: { word: 'Failed (upstream)', cls: 's-upstream', shape: octagon, glyph: 'M8 11V5.4M5.6 7.6L8 5.2l2.4 2.4' },
  RUNNING: { word: 'Running', cls: 's-running', shape: ring, glyph: 'M6.6 5.3L11 8l-4.4 2.7z', filled: true },
  RETRYING: { word: 'Retrying', cls: 's-retrying', shape: diamond, glyph: 'M10.3 6.9A2.6 2.6 0 1 0 10.5 9M10.5 5v2.2H8.3' },
  QUEUED: { word: 'Queued', cls: 's-queued', shape: square, glyph: 'M5.3 6h5.4M5.3 8h5.4M5.3 10h3' },
  WAITING: { word: 'Waiting', cls: 's-waiting', shape: ring, glyph: 'M8 4.8V8l2.2 1.6' },
  PENDING: { word: 'Pending', cls: 's-pending', shape: ring, dashed: true, glyph: '' },
  SKIPPED: { word: 'Skipped', cls: 's-skipped', shape: square, dashed: true, glyph: 'M5.2 5.8L7.4 8l-2.2 2.2M8.8 5.8L11 8l-2.2 2.2' },
  CANCELLED: { word: 'Cancelled', cls: 's-cancelled', shape: ring, glyph: 'M3.9 12.1l8.2-8.2' },
  PAUSED: { word: 'Paused', cls: 's-paused', shape: square, glyph: 'M6.4 5.6v4.8M9.6 5.6v4.8' },
  CORRUPT: { word: 'Damaged', cls: 's-failed', shape: diamond, glyph: 'M8 4.8v4M8 10.6v.6' },
};
const UNKNOWN = { word: 'Unknown', cls: 's-pending', shape: diamond, dashed: true, glyph: '' };

export function stateOf(name) {
  return STATES[name] ?? (name ? { ...UNKNOWN, word: name } : UNKNOWN);
}

export const EXECUTION_STATES = ['PENDING', 'RUNNING', 'PAUSED', 'COMPLETED', 'FAILED', 'CANCELLED'];
export const isTerminal = status => status === 'COMPLETED' || status === 'FAILED' || status === 'CANCELLED';
