// The YAML in which workflows are written, as a value: the core schema of YAML 1.2, without anchors, tags and
// complex keys. What is not understood is refused with its line; `flowd submit` takes all of YAML.
export class BadYaml extends Error {
  constructor(line, text) {
    super(text);
    this.line = line;
  }
}

const DEPTH_MAX = 200;
const ESCAPES = { n: '\n', t: '\t', r: '\r', 0: '\0', '"': '"', '\\': '\\', '/': '/', b: '\b', f: '\f', e: '\x1b', ' ': ' ', a: '\x07', v: '\v' };

export const parseYaml = text => readYaml(text).value;

/** {value, lines}: where what stands at a path, such as `dag.nodes[1].handler`, begins; counted from 1. */
export function readYaml(text) {
  const reader = new Reader(text);
  return { value: reader.document(), lines: reader.found };
}

class Reader {
  constructor(text) {
    this.lines = text.replace(/^\ufeff/, '').replace(/\r?\n$/, '').split(/\r?\n/);
    this.at = 0;
    this.path = '';
    this.found = new Map();
  }

  /** What `read` answers, as what stands at `step` of what is read. */
  within(step, read) {
    const outer = this.path;
    this.path = typeof step === 'number' ? `${outer}[${step}]` : outer ? `${outer}.${step}` : step;
    this.found.set(this.path, this.at + 1);
    const value = read();
    this.path = outer;
    return value;
  }

  fail(text, line = this.at) {
    throw new BadYaml(line + 1, text);
  }

  /** Moves to the next line that says something; its indentation, or -1 at the end. */
  next() {
    for (; this.at < this.lines.length; this.at += 1) {
      const line = this.lines[this.at];
      if (/^\s*(#.*)?$/.test(line)) continue;
      if (/^(---|\.\.\.)(\s|$)/.test(line)) return -1;
      const indent = line.search(/[^ ]/);
      if (line[indent] === '\t') this.fail('a tab indents this line; use spaces');
      return indent;
    }
    return -1;
  }

  document() {
    while (this.at < this.lines.length && /^\s*(#.*)?$|^%/.test(this.lines[this.at])) this.at += 1;
    if (/^---\s*(#.*)?$/.test(this.lines[this.at] ?? '')) this.at += 1;
    const indent = this.next();
    const value = indent < 0 ? null : this.block(indent, 0);
    if (this.next() >= 0) this.fail('this line belongs to nothing before it');
    const rest = this.lines.slice(this.at).filter(line => !/^\s*(#.*)?$/.test(line));
    if (rest.length > 1 || (rest.length === 1 && !/^(\.\.\.|---)\s*$/.test(rest[0]))) this.fail('here a second document begins; submit one workflow at a time');
    return value;
  }

  block(indent, depth) {
    if (depth > DEPTH_MAX) this.fail('this is too deep');
    const text = this.lines[this.at].slice(indent);
    if (/^-(\s|$)/.test(text)) return this.sequence(indent, depth);
    if (this.key(text)) return this.mapping(indent, depth);
    return this.scalar(indent - 1, text, depth);
  }

  sequence(indent, depth) {
    const items = [];
    while (this.next() === indent && /^-(\s|$)/.test(this.lines[this.at].slice(indent))) {
      items.push(this.within(items.length, () => this.item(indent, depth)));
    }
    return items;
  }

  item(indent, depth) {
    const line = this.lines[this.at];
    const rest = line.slice(indent + 1);
    if (/^\s*(#.*)?$/.test(rest)) {
      this.at += 1;
      const deeper = this.next();
      return deeper > indent ? this.block(deeper, depth + 1) : null;
    }
    const inner = indent + 1 + rest.search(/\S/);
    const said = line.slice(inner);
    if (!/^-(\s|$)/.test(said) && !this.key(said)) return this.scalar(indent, said, depth + 1);
    this.lines[this.at] = ' '.repeat(inner) + said;
    return this.block(inner, depth + 1);
  }

  /** [key, what stands behind its colon], or null where the text is no `key:`. */
  key(text) {
    const quoted = /^("(?:[^"\\]|\\.)*"|'(?:[^']|'')*')\s*:(\s|$)/.exec(text);
    if (quoted) return [this.quoted(quoted[1]), text.slice(quoted[0].length)];
    if (/^[?&*!|>%@`"'[{#,]/.test(text)) return null;
    const plain = /^([^#]*?(?:[^\s#]#[^#]*?)*?)\s*:(?:\s+|$)/.exec(text);
    return plain && plain[1] ? [plain[1], text.slice(plain[0].length)] : null;
  }

  mapping(indent, depth) {
    const found = {};
    while (this.next() === indent) {
      const text = this.lines[this.at].slice(indent);
      if (/^-(\s|$)/.test(text)) break;
      const pair = this.key(text);
      if (!pair) this.fail(/^[?&*!]/.test(text) ? 'this needs a reader of all of YAML; use `flowd submit`' : 'a key and a colon should stand here');
      const [key, said] = pair;
      if (key === '<<') this.fail('this needs a reader of all of YAML; use `flowd submit`');
      if (Object.hasOwn(found, key)) this.fail(`the key '${key}' is written more than once`);
      if (typeof plainValue(key) !== 'string' && !/^["']/.test(text)) this.fail('a key has to be text; put it in quotes');
      const value = this.within(key, () => this.behind(indent, said, depth));
      Object.defineProperty(found, key, { value, enumerable: true, writable: true, configurable: true });
    }
    if (this.next() > indent) this.fail('this line is indented deeper than the keys before it');
    return found;
  }

  /** The value of a key: in its line, or below it. */
  behind(indent, said, depth) {
    if (!/^\s*(#.*)?$/.test(said)) return this.scalar(indent, said.trimStart(), depth + 1);
    this.at += 1;
    const deeper = this.next();
    const isList = deeper === indent && /^-(\s|$)/.test(this.lines[this.at].slice(deeper));
    return deeper > indent || isList ? this.block(deeper, depth + 1) : null;
  }

  /** A value that begins in this line; `indent` is that of what holds it. */
  scalar(indent, text, depth) {
    if (/^[&*!]/.test(text)) this.fail('this needs a reader of all of YAML; use `flowd submit`');
    const block = /^([|>])([+-]?)(\d?)([+-]?)\s*(#.*)?$/.exec(text);
    if (block) return this.lines_of(indent, block[1], block[2] || block[4], Number(block[3]));
    if (/^["'[{]/.test(text)) return this.flow(indent, text, depth);
    this.at += 1;
    let plain = withoutComment(text);
    if (/:(\s|$)/.test(plain)) this.fail('a colon makes a key of this; put the value in quotes', this.at - 1);
    if (/^[@`%]/.test(plain)) this.fail(`no value begins with ${plain[0]}; put it in quotes`, this.at - 1);
    if (plain === text.trimEnd()) {
      while (this.next() > indent && !/^\s*$/.test(this.lines[this.at - 1])) {
        const more = this.lines[this.at].trim();
        if (this.key(more)) this.fail('this line is indented deeper than what it could belong to');
        plain += ` ${withoutComment(more)}`;
        this.at += 1;
      }
    }
    return plainValue(plain);
  }

  lines_of(indent, style, chomp, given) {
    const first = this.at + 1;
    let own = given ? Math.max(indent, 0) + given : 0;
    const found = [];
    for (this.at = first; this.at < this.lines.length; this.at += 1) {
      const line = this.lines[this.at];
      if (/^ *$/.test(line)) {
        found.push(own ? line.slice(own) : '');
        continue;
      }
      const deep = line.search(/[^ ]/);
      own ||= deep;
      if (deep <= indent || deep < own) break;
      found.push(line.slice(own));
    }
    let end = 0;
    for (; found.at(-1) === ''; end += 1) found.pop();
    let text = style === '|' ? found.join('\n') : folded(found);
    if (!found.length) return chomp === '+' ? '\n'.repeat(end) : '';
    if (chomp !== '-') text += '\n';
    return chomp === '+' ? text + '\n'.repeat(end) : text;
  }

  /** Quotes, brackets and braces, which may go on over lines. */
  flow(indent, text, depth) {
    const start = this.at;
    let rest = text;
    const source = () => {
      this.at += 1;
      if (this.at >= this.lines.length || (this.lines[this.at].trim() && this.lines[this.at].search(/[^ ]/) <= indent && !/^[\s\]}]/.test(this.lines[this.at]))) this.fail('what begins here does not end', start);
      rest = this.lines[this.at].trim();
      return rest;
    };
    const skip = () => {
      rest = rest.trimStart();
      while (rest === '' || rest.startsWith('#')) rest = source();
    };
    const value = deep => {
      if (deep > DEPTH_MAX) this.fail('this is too deep');
      skip();
      if (rest[0] === '[') return list(deep);
      if (rest[0] === '{') return map(deep);
      if (rest[0] === '"' || rest[0] === "'") return this.quoted(quote());
      if (/^[&*!]/.test(rest)) this.fail('this needs a reader of all of YAML; use `flowd submit`');
      const plain = /^(?:[^\s,[\]{}:#]|:(?=[^\s,[\]{}])|[ \t]+(?=[^\s#,[\]{}:])|#)+/.exec(rest);
      if (!plain) this.fail(`'${rest[0]}' is not expected here`);
      rest = rest.slice(plain[0].length);
      return plainValue(plain[0].trim());
    };
    const quote = () => {
      const pattern = rest[0] === '"' ? /^"(?:[^"\\]|\\.)*"/ : /^'(?:[^']|'')*'/;
      let whole = rest;
      for (;;) {
        const match = pattern.exec(whole);
        if (match) {
          rest = whole.slice(match[0].length);
          return match[0];
        }
        whole = `${whole.trimEnd()} ${source()}`;
      }
    };
    const list = deep => {
      const items = [];
      rest = rest.slice(1);
      for (skip(); rest[0] !== ']'; skip()) {
        items.push(this.within(items.length, () => value(deep + 1)));
        skip();
        if (rest[0] === ',') rest = rest.slice(1);
        else if (rest[0] !== ']') this.fail(`a comma or ] should stand before '${rest[0]}'`);
      }
      rest = rest.slice(1);
      return items;
    };
    const map = deep => {
      const found = {};
      rest = rest.slice(1);
      for (skip(); rest[0] !== '}'; skip()) {
        const isQuoted = rest[0] === '"' || rest[0] === "'";
        const key = value(deep + 1);
        if (typeof key !== 'string') this.fail('a key has to be text; put it in quotes');
        if (Object.hasOwn(found, key)) this.fail(`the key '${key}' is written more than once`);
        skip();
        if (rest[0] !== ':') this.fail(`a colon should stand behind the key '${key}'`);
        if (!isQuoted && !/^:(\s|$)/.test(rest)) this.fail('a space should stand behind this colon');
        rest = rest.slice(1).trimStart();
        const isEmpty = rest[0] === ',' || rest[0] === '}';
        Object.defineProperty(found, key, { value: isEmpty ? null : this.within(key, () => value(deep + 1)), enumerable: true, writable: true, configurable: true });
        skip();
        if (rest[0] === ',') rest = rest.slice(1);
        else if (rest[0] !== '}') this.fail(`a comma or } should stand before '${rest[0]}'`);
      }
      rest = rest.slice(1);
      return found;
    };
    const found = value(depth);
    if (!/^\s*(\s#.*)?$/.test(rest)) this.fail(`'${rest.trim().slice(0, 20)}' stands behind the end of this value`);
    this.at += 1;
    return found;
  }

  quoted(text) {
    const inner = text.slice(1, -1);
    if (text[0] === "'") return inner.replaceAll("''", "'");
    return inner.replace(/\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))/g, (_, x, u, long, one) => {
      if (one === undefined) return String.fromCodePoint(parseInt(x ?? u ?? long, 16));
      if (!(one in ESCAPES)) this.fail(`\\${one} is no escape`);
      return ESCAPES[one];
    });
  }
}

function folded(lines) {
  let text = '';
  for (const [index, line] of lines.entries()) {
    const before = lines[index - 1];
    const isOwn = /^\s/.test(line) || /^\s/.test(before ?? '');
    if (index) text += before === '' || line === '' ? (line === '' && !isOwn ? '\n' : isOwn && line !== '' && before !== '' ? '\n' : '') : isOwn ? '\n' : ' ';
    text += line;
  }
  return text;
}

const withoutComment = text => text.replace(/(^|\s)#.*$/, '').trimEnd();

function plainValue(text) {
  if (/^(~|null|Null|NULL|)$/.test(text)) return null;
  if (/^(true|True|TRUE)$/.test(text)) return true;
  if (/^(false|False|FALSE)$/.test(text)) return false;
  if (/^[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?$/.test(text)) {
    const value = Number(text);
    if (/^[-+]?\d+$/.test(text) && !Number.isSafeInteger(value)) throw new BadYaml(null, `${text} has more digits than a browser keeps; put it in quotes`);
    return value;
  }
  return text;
}
