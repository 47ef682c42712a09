// Every view, by its path under the root; each is loaded when it is first visited.
export const ROUTES = [
  ['', () => import('./views/executions.js')],
  ['executions', () => import('./views/executions.js')],
];

/** What stands in the navigation: path, word, the key behind `g`. */
export const NAVIGATION = [
  ['executions', 'Executions', 'e'],
];
