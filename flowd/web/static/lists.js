// Lists that come in pages, small ones whole: definitions, schedules, dead letters.
import { useCallback, useEffect, useRef, useState } from './lib.js';
import { api } from './api.js';
import { polls } from './live.js';
import { paused, visible } from './settings.js';

const PAGE = 200;

/** {rows, next, loading, error, more(), reload()}; `field` is where the rows stand in an answer. */
export function usePages(path, field, { query, everyMs } = {}) {
  const key = path + JSON.stringify(query ?? null);
  const [state, setState] = useState({ rows: [], next: null, loading: true, error: null });
  const self = useRef({}).current;
  self.state = state;

  const load = useCallback(async isFirst => {
    if (self.busy) return;
    const controller = new AbortController();
    self.busy = controller;
    // What is shown is asked for again in one page where that holds it.
    const limit = isFirst ? Math.max(PAGE, Math.min(1000, self.state.rows.length)) : PAGE;
    setState(before => ({ ...before, loading: true }));
    try {
      const cursor = isFirst ? undefined : self.state.next;
      const page = await api.get(path, { query: { ...query, limit, cursor }, signal: controller.signal });
      setState(before => ({ rows: isFirst ? page[field] : [...before.rows, ...page[field]], next: page.next_cursor, loading: false, error: null }));
    } catch (error) {
      if (!controller.signal.aborted) setState(before => ({ ...before, loading: false, error }));
    }
    if (self.busy === controller) self.busy = null;
  }, [key]);

  useEffect(() => {
    load(true);
    if (everyMs) polls.value += 1;
    const poll = everyMs && setInterval(() => { if (visible.peek() && !paused.peek() && self.state.rows.length <= 1000) load(true); }, everyMs);
    return () => {
      clearInterval(poll);
      if (everyMs) polls.value -= 1;
      self.busy?.abort();
      self.busy = null;
    };
  }, [key]);

  return { ...state, more: () => { if (self.state.next && !self.state.error) load(false); }, reload: () => load(true) };
}
