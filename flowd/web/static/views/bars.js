// What ended, hour by hour: bars that are one picture, and the same as a table for whoever does not see them.
import { html, useState } from '../lib.js';
import { moment, number } from '../format.js';
import { clock } from '../settings.js';
import { stateOf } from '../states.js';

const HEIGHT = 72;
const STATES = ['COMPLETED', 'CANCELLED', 'FAILED'];

export function Bars({ stats: { buckets, bucket }, title = 'The last 24 hours' }) {
  const [at, setAt] = useState(null);
  const most = Math.max(1, ...buckets.map(one => STATES.reduce((sum, state) => sum + one[state], 0)));
  const sum = state => buckets.reduce((total, one) => total + one[state], 0);
  const width = 100 / Math.max(1, buckets.length);
  const when = one => moment(one.at_ms, clock.value === 'utc').slice(0, bucket === 'day' ? 10 : 16);
  const shown = at === null ? null : buckets[at];
  return html`<section class="stack bars" aria-labelledby="bars">
    <div class="row"><h2 id="bars">${title}</h2>
      <span class="soft num">${STATES.map(state => `${number(shown ? shown[state] : sum(state))} ${stateOf(state).word.toLowerCase()}`).join(', ')}${shown ? ` · ${when(shown)}` : ''}</span></div>
    <svg viewBox=${`0 0 100 ${HEIGHT}`} height=${HEIGHT} width="100%" preserveAspectRatio="none" aria-hidden="true" onMouseLeave=${() => setAt(null)}>
      ${buckets.map((one, index) => {
        let top = HEIGHT;
        return html`<g key=${one.at_ms} onMouseEnter=${() => setAt(index)}><rect x=${index * width} y="0" width=${width} height=${HEIGHT} class="bar-back" />${STATES.map(state => {
          const height = (one[state] / most) * (HEIGHT - 2);
          top -= height;
          return height > 0 && html`<rect key=${state} class=${`bar ${stateOf(state).cls}`} x=${index * width + width * 0.12} width=${width * 0.76} y=${top} height=${Math.max(height, 1.5)} />`;
        })}</g>`;
      })}
    </svg>
    <div class="row faint num between"><span>${buckets.length ? when(buckets[0]) : ''}</span><span>now</span></div>
    <div class="visually-hidden"><table><caption>${title}</caption><thead><tr><th>From</th>${STATES.map(state => html`<th key=${state}>${stateOf(state).word}</th>`)}</tr></thead>
      <tbody>${buckets.map(one => html`<tr key=${one.at_ms}><th>${when(one)}</th>${STATES.map(state => html`<td key=${state}>${one[state]}</td>`)}</tr>`)}</tbody></table></div>
  </section>`;
}
