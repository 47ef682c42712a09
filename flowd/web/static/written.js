// A workflow as somebody has written it, in YAML or JSON: what it says, and in which line each problem of it is.
import { BadYaml, readYaml } from './yaml.js';

/** Those of JSON, which is YAML where nobody has written it oddly. */
function linesOf(text) {
  try {
    return readYaml(text).lines;
  } catch {
    return new Map();
  }
}

/** A problem of the API with its line, and the node it is about, where they are known. */
export function placed({ path, message }, { workflow, lines }) {
  // Where it stands itself, or what holds it.
  const steps = path.match(/(?:^|\.)[^.[\]]+|\[\d+\]/g) ?? [];
  while (steps.length && !lines.has(steps.join(''))) steps.pop();
  const line = lines.get(steps.join(''));
  const [, list, place] = /^dag\.(nodes|finally)\[(\d+)\]/.exec(path) ?? [];
  return { path, message, line, node: list && workflow?.dag?.[list]?.[place]?.id };
}

/** {workflow, lines} or {wrong: [{path, message}]}. */
export function readWorkflow(text) {
  if (!text.trim()) return {};
  try {
    if (/^\s*[[{]/.test(text)) return { workflow: JSON.parse(text), lines: linesOf(text) };
  } catch (error) {
    return { wrong: [{ path: 'JSON', message: error.message }] };
  }
  try {
    const { value: workflow, lines } = readYaml(text);
    return { workflow, lines };
  } catch (error) {
    if (!(error instanceof BadYaml)) throw error;
    return { wrong: [{ path: error.line ? `line ${error.line}` : 'YAML', message: error.message, line: error.line }] };
  }
}
