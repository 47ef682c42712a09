// Every view, by its path under the root; each is loaded when it is first visited.
const now = () => import('./views/now.js');
const executions = () => import('./views/executions.js');
const execution = () => import('./views/execution.js');
const limits = () => import('./views/limits.js');
const definition = () => import('./views/definition.js');

export const ROUTES = [
  ['', now],
  ['now', now],
  ['executions', executions],
  ['executions/:id', execution],
  ['executions/:id/:tab', execution],
  ['compare', () => import('./views/compare.js')],
  ['definitions', () => import('./views/definitions.js')],
  ['definitions/:name', definition],
  ['definitions/:name/:tab', definition],
  ['schedules', () => import('./views/schedules.js')],
  ['schedules/:name', () => import('./views/schedule.js')],
  ['dead-letters', () => import('./views/dead_letters.js')],
  ['limits', limits],
  ['limits/:name', limits],
  ['submit', () => import('./views/submit.js')],
  ['system', () => import('./views/system.js')],
];

/** What stands in the navigation: path, word, the key behind `g`. */
export const NAVIGATION = [
  ['now', 'Now', 'n'],
  ['executions', 'Executions', 'e'],
  ['definitions', 'Definitions', 'd'],
  ['schedules', 'Schedules', 's'],
  ['dead-letters', 'Dead letters', 'l'],
  ['limits', 'Limits', 'i'],
  ['submit', 'Submit', 'u'],
  ['system', 'System', 'y'],
];
