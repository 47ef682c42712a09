// Which view is shown: the path under the page's own root, the filters in the query.
import { html, signal, useEffect } from './lib.js';

/** Where the page and the API are, whatever a proxy has put before them. */
export const ROOT = new URL('../../', import.meta.url);
export const API_ROOT = new URL('../', ROOT);

function read() {
  const path = location.pathname.startsWith(ROOT.pathname) ? location.pathname.slice(ROOT.pathname.length) : '';
  return { path: path.replace(/\/+$/, ''), query: Object.fromEntries(new URLSearchParams(location.search)) };
}

export const route = signal(read());
addEventListener('popstate', () => { route.value = read(); });

export function href(path, query) {
  const url = new URL(path, ROOT);
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== null && value !== undefined && value !== '') url.searchParams.set(name, value);
  }
  return url.pathname + url.search;
}

export function navigate(path, { query, replace = false } = {}) {
  history[replace ? 'replaceState' : 'pushState'](null, '', href(path, query));
  const before = route.value.path;
  route.value = read();
  if (route.value.path !== before) scrollTo(0, 0);
}

/** Changes some of the query; null takes a key away. */
export function setQuery(changes, { replace = false } = {}) {
  navigate(route.value.path, { query: { ...route.value.query, ...changes }, replace });
}

export function Link({ to, query, children, ...rest }) {
  const follow = event => {
    if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    navigate(to, { query });
  };
  return html`<a href=${href(to, query)} onClick=${follow} ...${rest}>${children}</a>`;
}

/** The pattern `executions/:id` on a path: its parameters, or null. */
export function match(pattern, path) {
  const wanted = pattern.split('/');
  const given = path.split('/');
  if (wanted.length !== given.length) return null;
  const params = {};
  for (const [at, part] of wanted.entries()) {
    if (!part.startsWith(':')) {
      if (part !== given[at]) return null;
      continue;
    }
    try {
      params[part.slice(1)] = decodeURIComponent(given[at]);
    } catch {
      return null;
    }
  }
  return params;
}

export function useTitle(title) {
  useEffect(() => { document.title = title ? `${title} · flowd` : 'flowd'; }, [title]);
}
