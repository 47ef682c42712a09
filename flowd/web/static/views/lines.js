// Text of any length by lines: only those in sight are elements.
import { html, useLayoutEffect, useRef, useState } from '../lib.js';
import { visibleLines } from '../format.js';

const LINE_PX = 18;
const BEYOND = 20;
const LINE_CHARS_MAX = 4_000;

const cut = text => visibleLines(text.length > LINE_CHARS_MAX ? `${text.slice(0, LINE_CHARS_MAX)} …` : text);

/**
 * A line is a text, or `{head, text, tone}`: what stands before it, and the class of a line that stands out.
 * `isFollowing` keeps the last line in sight, until somebody scrolls up: `onFollow(false)`.
 */
export function Lines({ lines, label, isFollowing = false, onFollow = () => {} }) {
  const scroller = useRef(null);
  const [view, setView] = useState({ top: 0, height: 600 });
  const stuck = useRef(isFollowing);
  stuck.current = isFollowing;
  useLayoutEffect(() => {
    const element = scroller.current;
    const measure = () => {
      const isLast = element.scrollTop + element.clientHeight >= element.scrollHeight - LINE_PX;
      if (stuck.current !== isLast) onFollow(isLast);
      setView({ top: element.scrollTop, height: element.clientHeight });
    };
    setView({ top: element.scrollTop, height: element.clientHeight });
    const observer = new ResizeObserver(() => setView({ top: element.scrollTop, height: element.clientHeight }));
    observer.observe(element);
    element.addEventListener('scroll', measure, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener('scroll', measure);
    };
  }, []);
  useLayoutEffect(() => {
    if (isFollowing) scroller.current.scrollTop = scroller.current.scrollHeight;
  }, [lines.length, isFollowing]);
  const first = Math.max(0, Math.floor(view.top / LINE_PX) - BEYOND);
  const last = Math.min(lines.length, Math.ceil((view.top + view.height) / LINE_PX) + BEYOND);
  const shown = lines.slice(first, last).map(one => (typeof one === 'string' ? cut(one) : html`<span class="faint">${one.head}</span><span class=${one.tone}>${cut(one.text)}</span>`));
  return html`<div class="lines" ref=${scroller} tabindex="0" role="region" aria-label=${label}>
    <div style=${{ height: `${lines.length * LINE_PX}px` }}><pre style=${{ transform: `translateY(${first * LINE_PX}px)` }}>${shown.map(one => [one, '\n'])}</pre></div>
  </div>`;
}
