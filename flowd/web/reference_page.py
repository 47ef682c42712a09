"""Render the page at `/docs`: the OpenAPI document for people, without any script."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #0a6cbd;
  --get: #0a6cbd; --post: #18794e; --delete: #c4302b; }
@media (prefers-color-scheme: dark) {
  :root { --accent: #6cb8f6; --get: #6cb8f6; --post: #63c497; --delete: #ff8f87; } }
html { scroll-padding-top: 5rem; }
body { display: grid; font: 15px/1.55 system-ui, sans-serif; gap: 0 2.5rem; margin: 0 auto;
  grid-template-columns: 15rem minmax(0, 1fr); max-width: 78rem; padding: 0 1.5rem; }
nav { border-right: 1px solid var(--line); font-size: 14px; height: 100vh; overflow-y: auto;
  padding: 1.5rem 0; position: sticky; top: 0; box-sizing: border-box; }
nav a { color: inherit; display: block; padding: .12rem 1rem .12rem 0; text-decoration: none;
  overflow-wrap: anywhere; }
nav a:hover { color: var(--accent); }
nav b { display: block; margin-top: .9rem; }
main { min-width: 0; padding: 1.5rem 0 6rem; }
main p { max-width: 46rem; }
a { color: var(--accent); }
h1 { line-height: 1.2; margin: 0 0 1rem; }
h1 small { font-weight: normal; opacity: .6; }
h2 { margin: 2.5rem 0 .6rem; }
h3 { font-size: 14px; margin: 1.2rem 0 .2rem; }
code, pre { font: 13.5px/1.5 ui-monospace, monospace; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 6px; margin: .8rem 0;
  overflow-x: auto; padding: .7rem .9rem; user-select: all; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .45rem 0; }
details > div { border-top: 1px solid var(--line); padding: .2rem 1rem 1rem; }
summary { align-items: baseline; cursor: pointer; display: grid; gap: 0 .8rem; list-style: none;
  grid-template-columns: 4.2rem minmax(0, 1fr) auto; padding: .55rem 1rem; }
summary::-webkit-details-marker { display: none; }
summary:hover, details[open] > summary { background: var(--soft); }
summary code { overflow-wrap: anywhere; }
summary .what { grid-column: 2 / 4; opacity: .75; }
.body summary { grid-template-columns: minmax(0, 1fr); }
.method { font: bold 12.5px/1.5 ui-monospace, monospace; }
.get { color: var(--get); } .post { color: var(--post); } .delete { color: var(--delete); }
.scope { border: 1px solid var(--line); border-radius: 1rem; font-size: 12.5px; opacity: .8;
  padding: 0 .6rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-top: 1px solid var(--line); padding: .35rem 1rem .35rem 0; text-align: left;
  vertical-align: top; }
tr:first-child > * { border-top: 0; }
th { font-weight: 600; white-space: nowrap; width: 1%; }
.type { min-width: 9rem; overflow-wrap: anywhere; width: 30%; }
@media (max-width: 56rem) {
  body { display: flex; flex-direction: column; padding: 0 1rem; }
  main { padding-bottom: 2rem; }
  nav { border-right: 0; border-top: 1px solid var(--line); columns: 2; height: auto; order: 1;
    padding-bottom: 3rem; position: static; }
  table { display: block; overflow-x: auto; }
  td { overflow-wrap: anywhere; }
  .type { min-width: 0; width: auto; } }
"""
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

_EXAMPLE_IDS = {
    "execution_id": "0190f0c1a2b34d5e6f708192",
    "node_id": "A",
    "letter_id": "1764000000000-0",
    "topic": "workflows",
}


def reference_page(document: Mapping[str, Any], url: str, manual: Mapping[str, str]) -> str:
    """`url` is where the examples find this API, `manual` the titles of its pages by topic."""
    return "\n".join(_page(document, url, manual))


def _page(document: Mapping[str, Any], url: str, manual: Mapping[str, str]) -> Iterator[str]:
    info = document["info"]
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>flowd: HTTP API</title><style>{STYLE}</style></head><body>"
    yield from _contents(document, manual)
    yield f"<main><h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>"
    for paragraph in info["description"].split("\n\n"):
        yield f"<p>{_text(paragraph)}</p>"
    yield '<p>For programs: <a href="/openapi.json">openapi.json</a>. '
    yield "A click selects an example.</p>"
    for tag, operations in _by_tag(document).items():
        yield f"<h2>{escape(_title(tag))}</h2>"
        for method, path, operation in operations:
            yield from _operation(document, url, method, path, operation)
    yield '<h2 id="bodies">Bodies</h2>'
    for name, schema in document["components"]["schemas"].items():
        yield from _schema(name, schema)
    yield "</main></body></html>"


def _contents(document: Mapping[str, Any], manual: Mapping[str, str]) -> Iterator[str]:
    yield "<nav>"
    for tag, operations in _by_tag(document).items():
        yield f"<b>{escape(_title(tag))}</b>"
        for _, _, operation in operations:
            name = operation["operationId"]
            yield f'<a href="#{escape(name)}">{escape(name.replace("_", " "))}</a>'
    yield '<b><a href="#bodies">Bodies</a></b><b>Manual</b>'
    for topic, title in manual.items():
        yield f'<a href="docs/{escape(topic)}">{escape(title)}</a>'
    yield "</nav>"


def _title(tag: str) -> str:
    return tag[:1].upper() + tag[1:]


def _by_tag(document: Mapping[str, Any]) -> dict[str, list[tuple[str, str, Mapping[str, Any]]]]:
    by_tag: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    return by_tag


def _operation(
    document: Mapping[str, Any], url: str, method: str, path: str, operation: Mapping[str, Any]
) -> Iterator[str]:
    scopes = [scope for requirement in operation["security"] for scope in requirement["bearer"]]
    yield f'<details><summary><span class="method {method.lower()}">{method}</span>'
    yield f"<code>{escape(path)}</code>"
    yield f'<span class="scope">{escape(scopes[0]) if scopes else "public"}</span>'
    yield f'<span class="what">{_text(operation["summary"])}</span></summary>'
    # Inside: a link to what a closed part holds opens it.
    yield f'<div id="{escape(operation["operationId"])}">'
    if text := operation.get("description"):
        yield f"<p>{_text(text)}</p>"
    yield f"<pre>{escape(_command(url, method, path, operation))}</pre>"
    if parameters := operation.get("parameters"):
        yield "<h3>Parameters</h3><table>"
        for parameter in parameters:
            where = "" if parameter["in"] == "query" else f" ({parameter['in']})"
            yield f"<tr><th><code>{escape(parameter['name'])}</code>{escape(where)}</th>"
            yield f'<td class="type"><code>{_type(parameter["schema"])}</code></td>'
            meaning = _text(parameter.get("description", ""))
            yield f"<td>{meaning}{_default(parameter['schema'])}</td></tr>"
        yield "</table>"
    if body := operation.get("requestBody"):
        schema = body["content"]["application/json"]["schema"]
        yield f"<h3>Body</h3>{_type(schema)}{'' if body['required'] else ', or nothing'}"
    yield "<h3>Answers</h3><table>"
    for status, response in operation["responses"].items():
        yield f"<tr><th>{status}</th><td>{_response(document, response)}</td></tr>"
    yield "</table></div></details>"


def _schema(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    """A body field by field; of one that is no object, its type."""
    yield f'<details class="body"><summary><code>{escape(name)}</code></summary>'
    yield f'<div id="{escape(name)}">'
    if text := schema.get("description"):
        yield f"<p>{_text(text)}</p>"
    if "properties" not in schema:
        yield f"<p><code>{_type(schema)}</code></p>"
    else:
        yield "<table>"
        required = schema.get("required", ())
        for field, property_schema in schema["properties"].items():
            left_out = "" if field in required else " may be left out"
            yield f"<tr><th><code>{escape(field)}</code></th>"
            yield f'<td class="type"><code>{_type(property_schema)}</code></td>'
            meaning = _text(property_schema.get("description", ""))
            yield f"<td>{meaning}{left_out}{_default(property_schema)}</td></tr>"
        yield "</table>"
    yield "</div></details>"


def _response(document: Mapping[str, Any], response: Mapping[str, Any]) -> str:
    if reference := response.get("$ref"):
        shared = document["components"]["responses"][reference.rpartition("/")[2]]
        return _text(shared["description"])
    for media_type, content in response.get("content", {}).items():
        if schema := content.get("schema"):
            return _type(schema)
        return f"<code>{escape(media_type)}</code>"
    return _text(response["description"])


def _type(schema: Mapping[str, Any]) -> str:
    """The type of a value in words, with links to bodies."""
    if reference := schema.get("$ref"):
        name = escape(reference.rpartition("/")[2])
        return f'<a href="#{name}"><code>{name}</code></a>'
    if choices := schema.get("anyOf"):
        return " or ".join(map(_type, choices))
    if "enum" in schema or "const" in schema:
        return escape(" | ".join(map(str, schema.get("enum", [schema.get("const")]))))
    if schema.get("type") == "array":
        return f"{_type(schema.get('items', {}))}, ..."
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return escape(str(schema.get("format") or schema.get("type") or "any"))


def _default(schema: Mapping[str, Any]) -> str:
    default = schema.get("default")
    shown = default is not None and default not in ("", [], {})
    return f" (default <code>{escape(json.dumps(default))}</code>)" if shown else ""


def _command(url: str, method: str, path: str, operation: Mapping[str, Any]) -> str:
    for name, example in _EXAMPLE_IDS.items():
        path = path.replace("{" + name + "}", example)
    words = ["curl"] if method == "GET" else ["curl", "-X", method]
    if "text/event-stream" in operation["responses"].get("200", {}).get("content", {}):
        words.append("-N")
    command = " ".join([*words, url + path])
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if "example" in content:
        command += " \\\n     -H 'Content-Type: application/json' \\\n     -d '"
        command += _example(content["example"]).replace("'", "'\\''") + "'"
    return command


def _example(value: Any) -> str:
    """JSON in a line where it is short, else with a line for each node or field."""
    short = json.dumps(value, ensure_ascii=False)
    return short if len(short) < 60 else json.dumps(value, indent=2, ensure_ascii=False)


def _text(text: str) -> str:
    """Escaped; what stands between backticks is code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if odd % 2 else part for odd, part in enumerate(parts))
