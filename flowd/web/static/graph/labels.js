// The words on a shape, and the sentence that says it to whoever does not see it.

import { number } from '../format.js';
import { STATES } from './states.js';

const TITLE_CHARS = 23;
const SUB_CHARS = 28;

const wordOf = (code) => STATES[code].word.toLowerCase();

export function shortened(text, chars) {
  if (text.length <= chars) return text;
  const tail = Math.floor(chars / 3);
  return `${text.slice(0, chars - tail - 1)}…${text.slice(-tail)}`;
}

/** What a shape is called; `nodes` has the `ids` and `handlers` of all nodes. */
export function nameOf({ kind, members, size, isMixed }, nodes) {
  const count = number(members.length);
  if (kind === 'node') return nodes.ids[members[0]];
  if (kind === 'run') return `chain × ${count}`;
  if (kind === 'runs') return `${number(members.length / size)} × chain of ${size}`;
  return `${isMixed ? 'nodes' : nodes.handlers[members[0]]} × ${count}`;
}

/** The two lines on a shape; without a tally nothing is said of states. */
export function label(shape, nodes, tally, at) {
  const title = shortened(nameOf(shape, nodes), TITLE_CHARS);
  if (!tally) return { title, sub: shape.isMixed ? '' : nodes.handlers[shape.members[0]] };
  const states = tally.of(at);
  const said = shape.members.length === 1
    ? `${wordOf(states[0][0])} · ${nodes.handlers[shape.members[0]]}`
    : states.map(([code, count]) => `${number(count)} ${wordOf(code)}`).join(' · ');
  const sub = said.length <= SUB_CHARS ? said : `${said.slice(0, SUB_CHARS - 1)}…`;
  return { title, sub };
}

export function sentence(shape, nodes, tally, at) {
  const states = tally.of(at).map(([code, count]) =>
    shape.members.length === 1 ? wordOf(code) : `${count} ${wordOf(code)}`,
  );
  const handler = shape.isMixed ? 'several handlers' : nodes.handlers[shape.members[0]];
  return `${nameOf(shape, nodes)}, ${handler}, ${states.join(', ')}`;
}
