// A table of any length: rows of one height, of which only those in sight are elements.
import { html, useEffect, useLayoutEffect, useRef, useState } from './lib.js';
import { useKeys } from './keys.js';

const BEYOND = 8;

/**
 * `columns`: [{id, head, cell(row), cls, width}]; `rowId(row)`; `onEnd()` when the last rows come into sight;
 * `selected`: a Set of ids with `onSelect(ids)`; `onOpen(row)` for Enter and a click. `j k x Enter` move within.
 */
export function VirtualTable({ label, rows, columns, rowId, rowClass, selected, onSelect, onOpen, onEnd, onSee, footer, total }) {
  const scroller = useRef(null);
  const table = useRef(null);
  const [view, setView] = useState({ top: 0, height: 600 });
  const [current, setCurrent] = useState(null);
  const anchor = useRef(null);
  const rowHeight = useRowHeight(scroller);

  useLayoutEffect(() => {
    const element = scroller.current;
    const measure = () => setView({ top: element.scrollTop, height: element.clientHeight });
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    element.addEventListener('scroll', measure, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener('scroll', measure);
    };
  }, []);

  const first = Math.max(0, Math.floor(view.top / rowHeight) - BEYOND);
  const last = Math.min(rows.length, Math.ceil((view.top + view.height) / rowHeight) + BEYOND);
  useEffect(() => { if (last >= rows.length - BEYOND) onEnd?.(); }, [last, rows.length]);
  onSee?.(rows.slice(first, last));

  const at = current === null ? -1 : rows.findIndex(row => rowId(row) === current);
  const go = to => {
    if (!rows.length) return;
    const next = Math.max(0, Math.min(rows.length - 1, to));
    setCurrent(rowId(rows[next]));
    const element = scroller.current;
    const head = table.current.tHead.offsetHeight;
    const top = next * rowHeight;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top + rowHeight + head > element.scrollTop + element.clientHeight) element.scrollTop = top + rowHeight + head - element.clientHeight;
    requestAnimationFrame(() => table.current?.querySelector(`tr[aria-rowindex="${next + 2}"]`)?.focus({ preventScroll: true }));
  };
  const toggle = (row, isRange) => {
    if (!selected) return;
    const next = new Set(selected);
    const id = rowId(row);
    const from = isRange && anchor.current !== null ? rows.findIndex(one => rowId(one) === anchor.current) : -1;
    if (from >= 0) {
      const to = rows.indexOf(row);
      for (const one of rows.slice(Math.min(from, to), Math.max(from, to) + 1)) next.add(rowId(one));
    } else if (!next.delete(id)) next.add(id);
    anchor.current = id;
    onSelect(next);
  };
  const page = Math.max(1, Math.floor(view.height / rowHeight) - 2);
  useKeys({
    j: ['next row', () => go(at + 1)],
    k: ['row before', () => go(at < 0 ? 0 : at - 1)],
    ...(selected && { x: ['select the row', () => at >= 0 && toggle(rows[at])] }),
    Enter: ['open the row', () => (at >= 0 && onOpen ? onOpen(rows[at]) : false)],
  });
  const onKeyDown = event => {
    if (event.target.closest('input, button, a')) return;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: rows.length - 1 }[event.key];
    if (to !== undefined) go(to);
    else if (event.key === ' ' && at >= 0 && selected) toggle(rows[at]);
    else if (event.key === 'Enter' && at >= 0) onOpen?.(rows[at]);
    else return;
    event.preventDefault();
  };

  const isAll = selected && rows.length > 0 && selected.size >= rows.length;
  return html`<div class="scroll table-scroll" ref=${scroller} onKeyDown=${onKeyDown}>
    <table ref=${table} class="table" aria-label=${label} aria-rowcount=${total ?? rows.length + 1}>
      <colgroup>${selected && html`<col style=${{ width: '34px' }} />`}${columns.map(one => html`<col key=${one.id} class=${`col-${one.id}`} style=${one.width ? { width: one.width } : undefined} />`)}</colgroup>
      <thead><tr aria-rowindex="1">
        ${selected && html`<th class="check"><label><span class="visually-hidden">Select all that are loaded</span><input type="checkbox" checked=${isAll} indeterminate=${selected.size > 0 && !isAll}
          onChange=${() => onSelect(isAll ? new Set() : new Set(rows.map(rowId)))} /></label></th>`}
        ${columns.map(one => html`<th key=${one.id} scope="col" class=${one.cls}>${one.head}</th>`)}
      </tr></thead>
      <tbody>
        ${first > 0 && html`<tr class="filler" aria-hidden="true"><td colspan=${columns.length + (selected ? 1 : 0)} style=${{ height: `${first * rowHeight}px` }}></td></tr>`}
        ${rows.slice(first, last).map((row, offset) => {
          const id = rowId(row);
          const isCurrent = id === current;
          return html`<tr key=${id} aria-rowindex=${first + offset + 2} tabindex=${isCurrent || (at < 0 && first + offset === 0) ? 0 : -1} data-id=${id}
              class=${`${rowClass?.(row) ?? ''} ${isCurrent ? 'current' : ''}`} aria-selected=${selected ? String(selected.has(id)) : undefined}
              onFocus=${() => setCurrent(id)}
              onClick=${event => { if (!event.target.closest('a, button, input, label') && !String(getSelection())) onOpen?.(row); }}>
            ${selected && html`<td class="check"><label><span class="visually-hidden">Select</span><input type="checkbox" tabindex="-1" checked=${selected.has(id)} onClick=${event => toggle(row, event.shiftKey)} /></label></td>`}
            ${columns.map(one => html`<td key=${one.id} class=${one.cls} data-head=${one.head}>${one.cell(row)}</td>`)}
          </tr>`;
        })}
        ${last < rows.length && html`<tr class="filler" aria-hidden="true"><td colspan=${columns.length + (selected ? 1 : 0)} style=${{ height: `${(rows.length - last) * rowHeight}px` }}></td></tr>`}
      </tbody>
    </table>
    ${footer}
  </div>`;
}

function useRowHeight(ref) {
  const [height, setHeight] = useState(32);
  useLayoutEffect(() => {
    const read = () => setHeight(parseFloat(getComputedStyle(ref.current).getPropertyValue('--row-px')) || 32);
    read();
    addEventListener('resize', read);
    return () => removeEventListener('resize', read);
  }, []);
  return height;
}
