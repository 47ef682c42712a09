// Text of any length by lines: only those in sight are elements.
import { html, useLayoutEffect, useMemo, useRef, useState } from '../lib.js';
import { visibleLines } from '../format.js';

const LINE_PX = 18;
const BEYOND = 20;
const LINE_CHARS_MAX = 4_000;
// Left, right, and a scrollbar.
const PADDING_PX = 56;
// Where a line has less room beside its head, it goes on below that.
const ROOM_MIN = 30;

/** How many letters a row of `element` holds, all as wide as one. */
function columnsOf(element) {
  const probe = document.createElement('pre');
  probe.textContent = 'x'.repeat(100);
  probe.style.cssText = 'position: absolute; visibility: hidden; width: max-content; padding: 0;';
  element.append(probe);
  const letter = probe.offsetWidth / 100;
  probe.remove();
  return letter ? Math.max(20, Math.floor((element.clientWidth - PADDING_PX) / letter)) : Infinity;
}

/** Rows of at most `columns` letters: what goes on stands below what a line says. */
export function rowsOf(lines, columns) {
  return lines.flatMap(line => {
    const { head, text, tone } = typeof line === 'string' ? { head: '', text: line } : line;
    const said = cut(text);
    if (head.length + said.length <= columns) return [{ head, text: said, tone }];
    const indent = ' '.repeat(columns - head.length < ROOM_MIN ? 2 : head.length);
    const rows = [];
    for (let at = 0, end = 0; at < said.length; at = end) {
      const room = Math.max(12, columns - (at ? indent : head).length);
      const space = said.lastIndexOf(' ', at + room) + 1;
      end = at + room >= said.length || space <= at + room / 2 ? at + room : space;
      // Two halves of one letter stay together.
      if (/[\ud800-\udbff]/.test(said[end - 1]) && end < said.length) end -= 1;
      rows.push({ head: at ? indent : head, text: said.slice(at, end), tone });
    }
    return rows;
  });
}

const cut = text => (text.length > LINE_CHARS_MAX ? `${text.slice(0, LINE_CHARS_MAX)} …` : text).replaceAll('\t', '    ');

/**
 * A line is a text, or `{head, text, tone}`: what stands before it, and the class of a line that stands out.
 * `isFollowing` keeps the last line in sight, until somebody scrolls up: `onFollow(false)`.
 */
export function Lines({ lines, label, isFollowing = false, onFollow = () => {} }) {
  const scroller = useRef(null);
  const [view, setView] = useState({ top: 0, height: 600 });
  const [columns, setColumns] = useState(Infinity);
  const rows = useMemo(() => rowsOf(lines, columns), [lines, columns]);
  const stuck = useRef(isFollowing);
  stuck.current = isFollowing;
  useLayoutEffect(() => {
    const element = scroller.current;
    const measure = () => {
      const isLast = element.scrollTop + element.clientHeight >= element.scrollHeight - LINE_PX;
      if (stuck.current !== isLast) onFollow(isLast);
      setView({ top: element.scrollTop, height: element.clientHeight });
    };
    const resize = () => {
      setColumns(columnsOf(element));
      setView({ top: element.scrollTop, height: element.clientHeight });
    };
    resize();
    const observer = new ResizeObserver(resize);
    observer.observe(element);
    element.addEventListener('scroll', measure, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener('scroll', measure);
    };
  }, []);
  useLayoutEffect(() => {
    if (isFollowing) scroller.current.scrollTop = scroller.current.scrollHeight;
  }, [rows.length, isFollowing]);
  const first = Math.max(0, Math.floor(view.top / LINE_PX) - BEYOND);
  const last = Math.min(rows.length, Math.ceil((view.top + view.height) / LINE_PX) + BEYOND);
  const shown = rows.slice(first, last).map(({ head, text, tone }) => [head && html`<span class="faint">${head}</span>`, tone ? html`<span class=${tone}>${visibleLines(text)}</span>` : visibleLines(text), '\n']);
  return html`<div class="lines" ref=${scroller} tabindex="0" role="region" aria-label=${label}>
    <div style=${{ height: `${rows.length * LINE_PX}px` }}><pre style=${{ transform: `translateY(${first * LINE_PX}px)` }}>${shown}</pre></div>
  </div>`;
}
