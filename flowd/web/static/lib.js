// The libraries under one roof: views import from here, and never a bare name.
import { h, Fragment, render } from 'preact';
import htm from 'htm';

export { h, Fragment, render };
export { createContext } from 'preact';
export {
  useCallback, useContext, useEffect, useErrorBoundary, useId, useLayoutEffect, useMemo, useRef, useState,
} from 'preact/hooks';
export { batch, computed, effect, signal, untracked, useComputed, useSignal, useSignalEffect } from '@preact/signals';

export const html = htm.bind(h);

const policy = globalThis.trustedTypes?.createPolicy('flowd-worker', {
  createScriptURL: url => {
    if (new URL(url).origin !== location.origin) throw new TypeError(`no worker of this origin: ${url}`);
    return url;
  },
});

/** The address of a worker's module, as `new Worker` takes it under Trusted Types. */
export function workerUrl(path, base) {
  const url = new URL(path, base).href;
  return policy ? policy.createScriptURL(url) : url;
}
