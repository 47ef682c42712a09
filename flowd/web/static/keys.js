// One letter does what a click does, unless somebody types, or has switched keys off.
import { useEffect, useRef } from './lib.js';
import { keys } from './settings.js';

const layers = [];

/** `bindings`: {key: [what it does, function]}. The newest layer that has a key is asked first. */
export function useKeys(bindings) {
  const layer = useRef({});
  layer.current.bindings = bindings;
  useEffect(() => {
    const own = layer.current;
    layers.push(own);
    return () => { layers.splice(layers.indexOf(own), 1); };
  }, []);
}

export function allKeys() {
  const found = new Map();
  for (const { bindings } of layers) for (const [key, [text]] of Object.entries(bindings)) found.set(key, text);
  return [...found];
}

function isTyping(target) {
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) && !/^(checkbox|radio|button)$/.test(target.type);
}

addEventListener('keydown', event => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const isEscape = event.key === 'Escape';
  if (!isEscape && (keys.value === 'off' || isTyping(event.target))) return;
  // Enter and Space belong to what has the focus.
  if (/^(Enter| )$/.test(event.key) && event.target.closest('a, button, summary, input')) return;
  if (document.querySelector('dialog[open]')) return;
  for (const { bindings } of [...layers].reverse()) {
    const binding = bindings[event.key];
    if (binding && binding[1](event) !== false) {
      event.preventDefault();
      return;
    }
  }
});
