// What lists do not say of the executions in sight: how far they are, their labels, what has started them.
import { useEffect, useRef, useState } from './lib.js';
import { api } from './api.js';
import { paused, visible } from './settings.js';
import { isTerminal } from './states.js';

// Who scrolls on is not asked for.
const PAUSE_MS = 250;
const AGAIN_MS = 10_000;
const ASKED_MAX = 40;
const AT_ONCE = 4;
const KEPT_MAX = 1_000;
const ENDED = ['COMPLETED', 'FAILED', 'SKIPPED', 'CANCELLED'];

const detailsOf = ({ name, counts, labels, schedule, definition }) => ({
  name, labels, schedule, version: definition?.split('@')[1], done: ENDED.reduce((sum, state) => sum + (counts[state] ?? 0), 0),
});

/** [a map by id of what is known, see(rows)]: rows have an `execution_id`, and a `status` if they know it. */
export function useSummaries() {
  const [found, setFound] = useState(new Map());
  const self = useRef({ rows: [], known: new Map() }).current;
  useEffect(() => {
    self.abort = new AbortController();
    return () => {
      clearTimeout(self.timer);
      self.abort.abort();
    };
  }, []);

  const ask = async ({ execution_id: id, status }) => {
    let details = self.known.get(id)?.details;
    try {
      details = detailsOf(await api.get(`workflows/${id}/summary`, { signal: self.abort.signal }));
    } catch {
      // It is gone, or the next look asks again.
    }
    self.known.set(id, { status, at: Date.now(), details });
  };
  const isDue = ({ execution_id: id, status }) => {
    const known = self.known.get(id);
    return !known || known.status !== status || (!isTerminal(status) && Date.now() - known.at > AGAIN_MS);
  };
  const look = async () => {
    if (self.isBusy || !visible.peek() || paused.peek()) return;
    const due = self.rows.filter(isDue).slice(0, ASKED_MAX);
    if (!due.length) return;
    self.isBusy = true;
    if (self.known.size > KEPT_MAX) self.known.clear();
    for (let at = 0; at < due.length && !self.abort.signal.aborted; at += AT_ONCE) {
      await Promise.all(due.slice(at, at + AT_ONCE).map(ask));
      if (!self.abort.signal.aborted) setFound(new Map([...self.known].map(([id, { details }]) => [id, details])));
    }
    self.isBusy = false;
  };
  const see = rows => {
    self.rows = rows;
    clearTimeout(self.timer);
    self.timer = setTimeout(look, PAUSE_MS);
  };
  return [found, see];
}
