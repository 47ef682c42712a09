// The public HTTP API, and nothing else.
import { API_ROOT } from './router.js';
import { askForToken, text } from './token.js';

/** What the API has refused, or that it did not answer: status 0. */
export class ApiError extends Error {
  constructor(status, problem, retryAfterS = null) {
    super(problem.detail || problem.title || `the API answered ${status}`);
    this.name = 'ApiError';
    this.status = status;
    this.code = problem.code ?? '';
    this.title = problem.title ?? '';
    this.detail = this.message;
    this.errors = problem.errors ?? [];
    this.problem = problem;
    this.retryAfterS = retryAfterS;
  }

  get passes() {
    return this.status === 0 || this.status === 429 || this.status === 503;
  }
}

export function apiUrl(path, query) {
  const url = new URL(path, API_ROOT);
  for (const [name, value] of Object.entries(query ?? {})) {
    if (Array.isArray(value)) for (const one of value) url.searchParams.append(name, one);
    else if (value !== null && value !== undefined && value !== '') url.searchParams.set(name, value);
  }
  return url;
}

/** The response, whatever its status but 401: then a token is asked for, and the request sent again. */
export async function send(method, path, { query, body, headers, signal } = {}) {
  for (;;) {
    const sent = { Accept: 'application/json', ...headers };
    const used = text.value;
    if (used) sent.Authorization = `Bearer ${used}`;
    if (body !== undefined && !sent['Content-Type']) sent['Content-Type'] = 'application/json';
    let response;
    try {
      response = await fetch(apiUrl(path, query), {
        method, headers: sent, body, signal, cache: 'no-store', credentials: 'same-origin', redirect: 'error',
      });
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new ApiError(0, { title: 'No answer', detail: 'flowd does not answer; it may be stopping, or the network is down' });
    }
    if (response.status !== 401) return response;
    const problem = await problemOf(response);
    // Another request may have been given a token meanwhile.
    if (used === text.value) await askForToken(problem.detail);
    signal?.throwIfAborted();
  }
}

async function problemOf(response) {
  try {
    return await response.json();
  } catch {
    return { title: response.statusText };
  }
}

export async function errorOf(response) {
  const after = Number(response.headers.get('retry-after'));
  return new ApiError(response.status, await problemOf(response), after || null);
}

async function call(method, path, options = {}) {
  const { json, ...rest } = options;
  if (json !== undefined) rest.body = JSON.stringify(json);
  const response = await send(method, path, rest);
  if (response.status === 304) return null;
  if (!response.ok) throw await errorOf(response);
  if (response.status === 204) return null;
  const answer = await response.json();
  if (options.etag) options.etag.value = response.headers.get('etag');
  return answer;
}

export const api = {
  get: (path, options) => call('GET', path, options),
  post: (path, json, options) => call('POST', path, { json, ...options }),
  put: (path, json, options) => call('PUT', path, { json, ...options }),
  del: (path, options) => call('DELETE', path, options),
};
