// A form made from a JSON Schema: fields where it is plain, JSON where it is not.
import { html, useState } from './lib.js';
import { Field } from './ui.js';

const PLAIN = new Set(['string', 'integer', 'number', 'boolean']);

const typeOf = schema => (Array.isArray(schema?.type) ? schema.type.find(one => one !== 'null') : schema?.type);
export const isPlain = schema => Array.isArray(schema?.enum) || PLAIN.has(typeOf(schema));

/** Whether true may stand in a field of an object of this schema. */
export function takesTrue(schema, name) {
  const one = schema?.properties?.[name];
  return one?.enum ? one.enum.includes(true) : typeOf(one) === 'boolean';
}

/** What was typed for each field, from the values it begins with. */
export function beginWith(schema, value = {}) {
  return Object.fromEntries(Object.entries(schema?.properties ?? {}).map(([name, one]) => [name, shown(one, value[name] ?? one?.default)]));
}

function shown(schema, value) {
  if (typeOf(schema) === 'boolean' && !schema.enum) return Boolean(value);
  if (value === undefined) return '';
  return isPlain(schema) ? String(value) : JSON.stringify(value, null, 2);
}

/** {value, wrong: {field: why}}: fields left empty are left out, so that defaults count. */
export function readForm(schema, typed) {
  const value = {};
  const wrong = {};
  for (const [name, one] of Object.entries(schema?.properties ?? {})) {
    const given = typed[name];
    if (given === '' || given === undefined) {
      if (schema.required?.includes(name)) wrong[name] = 'this is needed';
      continue;
    }
    try {
      value[name] = parse(one, given);
    } catch (error) {
      wrong[name] = error.message;
    }
  }
  return { value, wrong };
}

function parse(schema, given) {
  if (schema?.enum) return schema.enum.find(one => String(one) === given);
  const type = typeOf(schema);
  if (type === 'boolean' || type === 'string') return given;
  if (type === 'integer' || type === 'number') {
    const number = Number(given);
    if (!Number.isFinite(number) || (type === 'integer' && !Number.isInteger(number))) throw new Error(type === 'integer' ? 'a whole number should stand here' : 'a number should stand here');
    return number;
  }
  try {
    return JSON.parse(given);
  } catch {
    throw new Error('JSON should stand here; text stands in quotes');
  }
}

export function SchemaForm({ schema, typed, onTyped, wrong }) {
  return Object.entries(schema?.properties ?? {}).map(([name, one]) => html`<${SchemaField} key=${name} name=${name} schema=${one ?? {}} isNeeded=${schema.required?.includes(name)}
    value=${typed[name]} wrong=${wrong[name]} onValue=${value => onTyped({ ...typed, [name]: value })} />`);
}

function SchemaField({ name, schema, isNeeded, value, wrong, onValue }) {
  const [isTouched, touch] = useState(false);
  const type = typeOf(schema);
  const label = html`<bdi>${schema.title ?? name}</bdi>${isNeeded ? '' : html` <span class="soft">optional</span>`}`;
  const about = { onBlur: () => touch(true), 'aria-required': isNeeded ? 'true' : undefined };
  return html`<${Field} label=${label} hint=${schema.description} error=${isTouched && wrong}>${(id, described) => {
    const common = { id, ...about, 'aria-describedby': described, 'aria-invalid': isTouched && wrong ? 'true' : undefined };
    if (schema.enum) {
      return html`<select ...${common} value=${value} onChange=${event => onValue(event.target.value)}><option value="">–</option>${schema.enum.map(one => html`<option key=${String(one)} value=${String(one)}>${String(one)}</option>`)}</select>`;
    }
    if (type === 'boolean') return html`<input type="checkbox" ...${common} checked=${value} onChange=${event => onValue(event.target.checked)} />`;
    if (type === 'integer' || type === 'number') return html`<input inputmode="decimal" autocomplete="off" ...${common} value=${value} onInput=${event => onValue(event.target.value)} />`;
    if (type === 'string') return html`<input autocomplete="off" ...${common} value=${value} placeholder=${schema.examples?.[0] ?? ''} onInput=${event => onValue(event.target.value)} />`;
    return html`<textarea class="mono" rows="4" spellcheck=${false} ...${common} placeholder="JSON" value=${value} onInput=${event => onValue(event.target.value)}></textarea>`;
  }}<//>`;
}
