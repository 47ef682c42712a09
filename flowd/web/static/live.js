// Events are a doorbell, snapshots are the truth: an event means "ask again", and rings are few.
import { effect, signal, untracked, useEffect, useLayoutEffect, useRef, useState } from './lib.js';
import { errorOf, api, send } from './api.js';
import { paused, visible } from './settings.js';

const RING_MS = 250;
// What is rung for by everything is asked for again less often while much happens.
const BELL_MS = 1_000;
const RECONNECT_MS_MAX = 15_000;
// A browser opens six connections to a host: a few windows keep a stream, older ones ask now and then.
const STREAMS_MAX = 3;
const POLL_MS = 5_000;
const SEEN_MS = 1_000;
const ENDS = /^execution\.(completed|failed|cancelled)$/;

/** The stream that says that anything has happened, not what: however much that is, it costs the same. */
export const BELL = 'events/bell';
/** 'off' | 'connecting' | 'live' | 'polling' | 'lost' | 'ended' | 'paused' */
export const liveState = signal('off');
/** How many documents are asked for again every few seconds. */
export const polls = signal(0);
/** Whether what the view shows has come to its end, so that no stream is needed. */
export const isSettled = signal(false);
const listeners = [];
const wanted = signal(null);
let lastId = '';
let lastType = '';
let events = [];
let timer = null;
let rungAt = 0;

/** Subscribes the view to a stream of the API. `ring(events)`: what came, [] for "anything may have changed". */
export function useLive(path, ring) {
  const latest = useRef(ring);
  latest.current = ring;
  useEffect(() => {
    if (!path) return undefined;
    const listener = { path, ring: all => latest.current(all) };
    listeners.push(listener);
    choose();
    return () => {
      listeners.splice(listeners.indexOf(listener), 1);
      choose();
    };
  }, [path]);
}

function choose() {
  const path = listeners.at(-1)?.path ?? null;
  if (path === wanted.peek()) return;
  lastId = lastType = '';
  wanted.value = path;
}

function ringSoon(event) {
  if (event) events.push(event);
  const pauseMs = wanted.peek() === BELL ? BELL_MS : 0;
  timer ??= setTimeout(ringNow, Math.max(RING_MS, rungAt + pauseMs - Date.now()));
}

function ringNow() {
  timer = null;
  rungAt = Date.now();
  const all = events;
  events = [];
  for (const listener of [...listeners]) if (listener.path === wanted.peek()) listener.ring(all);
}

// Several windows on one flowd.
const channel = new BroadcastChannel('flowd.streams');
const id = crypto.getRandomValues(new Uint32Array(2)).join('-');
let newer = new Set();
const gaveWay = signal(false);
channel.onmessage = ({ data }) => {
  if (data.opened) newer.add(data.opened);
  if (data.closed) newer.delete(data.closed);
  if (newer.size >= STREAMS_MAX) gaveWay.value = true;
};
addEventListener('focus', () => { gaveWay.value = false; });
addEventListener('pagehide', () => channel.postMessage({ closed: id }));

let first = true;
effect(() => {
  const path = wanted.value;
  const isPolling = gaveWay.value;
  if (!path || !visible.value || paused.value) {
    liveState.value = paused.value ? 'paused' : 'off';
    return undefined;
  }
  if (!first) ringSoon();
  first = false;
  if (isPolling) {
    liveState.value = 'polling';
    const poll = setInterval(() => ringSoon(), POLL_MS);
    return () => clearInterval(poll);
  }
  const controller = new AbortController();
  newer = new Set();
  channel.postMessage({ opened: id });
  untracked(() => follow(path, controller.signal));
  return () => {
    controller.abort();
    channel.postMessage({ closed: id });
    clearTimeout(timer);
    timer = null;
    events = [];
  };
});

async function follow(path, abort) {
  let pause = SEEN_MS;
  while (!abort.aborted) {
    liveState.value = liveState.peek() === 'lost' ? 'lost' : 'connecting';
    const since = Date.now();
    try {
      if (await read(path, abort) === 'ended') {
        liveState.value = 'ended';
        return;
      }
    } catch (error) {
      if (abort.aborted) return;
      if (error.status >= 400 && error.status < 500 && error.status !== 429) {
        liveState.value = 'off';
        return;
      }
    }
    if (abort.aborted) return;
    liveState.value = 'lost';
    pause = Date.now() - since > 5_000 ? SEEN_MS : Math.min(pause * 2, RECONNECT_MS_MAX);
    await new Promise(resolve => setTimeout(resolve, pause * (0.7 + 0.6 * Math.random())));
  }
}

async function read(path, abort) {
  const headers = { Accept: 'text/event-stream' };
  if (lastId) headers['Last-Event-ID'] = lastId;
  const response = await send('GET', path, { headers, signal: abort });
  if (response.status === 204) return 'ended';
  if (!response.ok) throw await errorOf(response);
  const wasLost = liveState.peek() === 'lost';
  liveState.value = 'live';
  // What happened before the stream began is in no event.
  if (!lastId || wasLost) ringSoon();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    // The stream of an execution ends with it: asked again, it would only say so.
    if (done) return path.startsWith('workflows/') && ENDS.test(lastType) ? 'ended' : 'cut';
    const blocks = (rest + value).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) take(block);
  }
}

function take(block) {
  const event = { type: 'message', data: null };
  for (const line of block.split('\n')) {
    if (line.startsWith('id: ')) lastId = line.slice(4);
    else if (line.startsWith('event: ')) event.type = line.slice(7);
    else if (line.startsWith('data: ')) event.data = line.slice(6);
  }
  if (event.data === null) return;
  lastType = event.type;
  if (event.type === 'gap') {
    lastId = '';
    events = [];
    ringSoon();
    return;
  }
  try {
    event.data = JSON.parse(event.data);
  } catch {
    return;
  }
  ringSoon(event);
}

/** A document of the API: {data, error, loading, stale, reload}. While it is asked for again, the old one stays. */
export function useResource(path, { query, everyMs, keep = false } = {}) {
  const key = path === null ? null : path + JSON.stringify(query ?? null);
  const [state, setState] = useState({ key: null, data: null, error: null, loading: true });
  const self = useRef({});
  const current = self.current;
  current.path = path;
  current.query = query;

  current.reload ??= async () => {
    if (current.path === null) return;
    if (current.controller) {
      // One at a time: who rings meanwhile is answered by the next.
      current.again = true;
      return;
    }
    const controller = new AbortController();
    const { path: asked, query: with_, key: askedKey } = current;
    current.controller = controller;
    clearTimeout(current.retry);
    setState(before => ({ ...before, loading: true }));
    let next;
    try {
      const data = await api.get(asked, { query: with_, signal: controller.signal });
      current.failures = 0;
      next = () => ({ key: askedKey, data, error: null, loading: false });
    } catch (error) {
      if (controller.signal.aborted) return;
      next = before => ({ ...before, key: askedKey, error, loading: false });
      if (error.passes) {
        current.failures = (current.failures ?? 0) + 1;
        const waitS = error.retryAfterS ?? Math.min(2 ** current.failures, 30);
        current.retry = setTimeout(() => { if (visible.peek() && !paused.peek()) current.reload(); }, waitS * 1000);
      }
    }
    if (current.controller !== controller) return;
    current.controller = null;
    setState(next);
    if (current.again) {
      current.again = false;
      current.reload();
    }
  };

  useLayoutEffect(() => {
    current.key = key;
    if (key === null) return undefined;
    if (!keep) setState(before => (before.key === null || before.key === key ? before : { key: null, data: null, error: null, loading: true }));
    current.reload();
    return () => {
      clearTimeout(current.retry);
      current.controller?.abort();
      current.controller = null;
      current.again = false;
    };
  }, [key]);

  useEffect(() => {
    if (!everyMs || key === null) return undefined;
    let poll = null;
    let wasAway = false;
    polls.value += 1;
    const stop = effect(() => {
      clearInterval(poll);
      if (!visible.value || paused.value) {
        wasAway = true;
        return;
      }
      if (wasAway) untracked(() => current.reload());
      wasAway = false;
      poll = setInterval(() => current.reload(), everyMs);
    });
    return () => {
      stop();
      clearInterval(poll);
      polls.value -= 1;
    };
  }, [key, everyMs]);

  const isOwn = keep || state.key === key;
  return {
    data: isOwn ? state.data : null,
    error: isOwn ? state.error : null,
    loading: state.loading || !isOwn,
    stale: Boolean(isOwn && state.data && state.error),
    reload: current.reload,
  };
}
