// What a node has said: as it stands, or line by line while it runs.
import { html, useEffect, useState } from '../lib.js';
import { errorOf, send } from '../api.js';
import { paused, visible } from '../settings.js';
import { Copy, CopyAs, Failure, plural } from '../ui.js';
import { Lines } from './lines.js';

const LINES_MAX = 20_000;
const STREAMS = { stdout: 'out', stderr: 'err', warning: 'warn', traceback: 'trace' };
const TONES = { stderr: 's-retrying', warning: 's-retrying', error: 's-failed', traceback: 's-failed', call: 's-queued', debug: 'soft' };

const two = (value, digits = 2) => String(value).padStart(digits, '0');

/** A line as it is shown: the time of day, where it was said, by which node of several; and what. */
function lineOf({ at_ms: at, stream, text, node_id: node }) {
  const time = new Date(at);
  const clock = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}.${two(time.getMilliseconds(), 3)}`;
  return { head: `${clock}  ${(STREAMS[stream] ?? stream).padEnd(5)}  ${node ? `${node}  ` : ''}`, text, tone: TONES[stream] };
}

const gap = count => ({ head: '', text: `… ${plural(count, 'line')} dropped …`, tone: 'soft' });
const written = lines => lines.map(({ head, text }) => head + text).join('\n');

/** The text of a log, which grows while it is followed. */
function useLog(path, attempt, isLive) {
  const [log, setLog] = useState({ lines: null, error: null });
  useEffect(() => {
    const abort = new AbortController();
    const lines = [];
    const add = more => {
      lines.push(...more);
      if (lines.length > LINES_MAX) lines.splice(0, lines.length - LINES_MAX);
      if (!abort.signal.aborted) setLog({ lines: [...lines], error: null });
    };
    const reading = isLive ? follow : read;
    reading(path, attempt, abort.signal, add).catch(error => {
      if (!abort.signal.aborted) setLog(before => ({ ...before, error }));
    });
    return () => abort.abort();
  }, [path, attempt, isLive]);
  return log;
}

async function read(path, attempt, signal, add) {
  const response = await send('GET', path, { query: { attempt }, signal });
  if (!response.ok) throw await errorOf(response);
  const { lines, dropped, dropped_at: at } = await response.json();
  const texts = lines.map(lineOf);
  if (dropped) texts.splice(at ?? texts.length, 0, gap(dropped));
  add(texts);
}

async function follow(path, attempt, signal, add) {
  const isOfAll = !path.includes('/nodes/');
  const response = await send('GET', path, { query: { attempt, follow: 'true' }, headers: { Accept: 'text/event-stream' }, signal });
  if (!response.ok) throw await errorOf(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  add([]);
  for (let rest = ''; ;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split('\n\n');
    rest = blocks.pop();
    add(blocks.flatMap(block => textsOf(block, isOfAll)));
  }
}

function textsOf(block, isOfAll) {
  const field = name => block.split('\n').find(line => line.startsWith(`${name}: `))?.slice(name.length + 2);
  const [type, data] = [field('event'), field('data')];
  if (type === 'lines') {
    const { node_id: node, lines } = JSON.parse(data);
    return lines.map(line => lineOf({ ...line, ...(isOfAll && { node_id: node }) }));
  }
  return type === 'dropped' ? [gap(JSON.parse(data).lines)] : [];
}

/** Of one node, or of all where none is named. */
export function Log({ execution, node, attempt = null, isEnded = false }) {
  const [isFollowing, setFollowing] = useState(true);
  const isLive = !isEnded && !execution.isOver && visible.value && !paused.value && attempt === null;
  const { lines, error } = useLog(`workflows/${execution.id}${node === null ? '' : `/nodes/${encodeURIComponent(node)}`}/logs`, attempt, isLive);
  return html`<div class="log">
    <${Failure} error=${error} compact />
    ${lines && html`<div class="toolbar"><span class="soft num">${plural(lines.length, 'line')}</span><span class="grow"></span>
      <${CopyAs} flowd=${`flowd logs ${execution.id}${node === null ? '' : ` ${node}`}${isLive ? ' -f' : ''}`} />
      ${isLive && html`<label class="row"><input type="checkbox" checked=${isFollowing} onChange=${event => setFollowing(event.target.checked)} /> Follow</label>`}
      <${Copy} text=${written(lines)} label="Copy text" what="Copied the log" /></div>
      ${lines.length > 0 ? html`<${Lines} lines=${lines} label=${`Log of ${node ?? 'all nodes'}`} isFollowing=${isLive && isFollowing} onFollow=${setFollowing} />` : html`<p class="soft">Nothing was said${isLive ? ' yet' : ''}.</p>`}`}
    ${!lines && !error && html`<p class="soft">Loading …</p>`}
  </div>`;
}
