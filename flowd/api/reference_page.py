"""The page at `/docs`: the OpenAPI document for people. It has no scripts and loads nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

_STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; --accent: #0a6cbd; }
@media (prefers-color-scheme: dark) { :root { --accent: #6cb8f6; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; }
a { color: var(--accent); }
h1 small { font-weight: normal; opacity: .6; }
h2 { border-bottom: 1px solid var(--line); margin-top: 2.5rem; text-transform: capitalize; }
code, pre { font: 14px/1.45 ui-monospace, monospace; }
pre { background: var(--soft); border-radius: 6px; overflow-x: auto; padding: .7rem; }
pre.copy { user-select: all; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; padding: 0 .8rem; }
details[open] { padding-bottom: .8rem; }
summary { cursor: pointer; padding: .5rem 0; }
.method { color: var(--accent); display: inline-block; font-weight: bold; width: 4.2rem; }
.what, .scope { opacity: .75; }
.scope { float: right; font-size: 14px; }
table { border-collapse: collapse; width: 100%; }
th, td { border-top: 1px solid var(--line); padding: .3rem .6rem .3rem 0; text-align: left;
  vertical-align: top; }
th { font-weight: 600; white-space: nowrap; }
"""
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

_EXAMPLE_IDS = {
    "execution_id": "0190f0c1a2b34d5e6f708192",
    "node_id": "A",
    "letter_id": "1764000000000-0",
}


def reference_page(document: Mapping[str, Any]) -> str:
    return "\n".join(_page(document))


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    info = document["info"]
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>flowd: HTTP API</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>"
    for paragraph in info["description"].split("\n\n"):
        yield f"<p>{_text(paragraph)}</p>"
    yield '<p>For programs: <a href="/openapi.json">openapi.json</a>. '
    yield "A click selects an example.</p>"
    for tag, operations in _by_tag(document).items():
        yield f"<h2>{escape(tag)}</h2>"
        for method, path, operation in operations:
            yield from _operation(document, method, path, operation)
    yield "<h2>Bodies</h2>"
    for name, schema in document["components"]["schemas"].items():
        yield f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        if text := schema.get("description"):
            yield f"<p>{_text(text)}</p>"
        yield f"<pre>{escape(json.dumps(schema, indent=2, ensure_ascii=False))}</pre></details>"
    yield "</body></html>"


def _by_tag(document: Mapping[str, Any]) -> dict[str, list[tuple[str, str, Mapping[str, Any]]]]:
    found: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            found.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    return found


def _operation(
    document: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any]
) -> Iterator[str]:
    scopes = [scope for one in operation["security"] for scope in one["bearer"]]
    yield f'<details id="{escape(operation["operationId"])}"><summary>'
    yield f'<span class="scope">{escape(scopes[0]) if scopes else "public"}</span>'
    yield f'<span class="method">{method}</span> <code>{escape(path)}</code>'
    yield f'<span class="what"> {_text(operation["summary"])}</span></summary>'
    if text := operation.get("description"):
        yield f"<p>{_text(text)}</p>"
    yield f'<pre class="copy">{escape(_command(method, path, operation))}</pre>'
    if parameters := operation.get("parameters"):
        yield "<table>"
        for one in parameters:
            yield f"<tr><th><code>{escape(one['name'])}</code></th><td>{escape(one['in'])}</td>"
            yield f"<td><code>{escape(_type(one['schema']))}</code></td>"
            yield f"<td>{_text(one.get('description', ''))}</td></tr>"
        yield "</table>"
    if body := operation.get("requestBody"):
        schema = body["content"]["application/json"]["schema"]
        yield f"<p>Takes {_links(schema)}{'' if body['required'] else ', or nothing'}.</p>"
    yield "<table>"
    for status, response in operation["responses"].items():
        yield f"<tr><th>{status}</th><td>{_response(document, response)}</td></tr>"
    yield "</table></details>"


def _response(document: Mapping[str, Any], response: Mapping[str, Any]) -> str:
    if reference := response.get("$ref"):
        shared = document["components"]["responses"][reference.rpartition("/")[2]]
        return _text(shared["description"])
    for media_type, content in response.get("content", {}).items():
        if schema := content.get("schema"):
            return f"{_links(schema)}: {_text(response['description'])}"
        return f"<code>{escape(media_type)}</code>"
    return _text(response["description"])


def _links(schema: Mapping[str, Any]) -> str:
    names = [one["$ref"].rpartition("/")[2] for one in schema.get("anyOf", [schema])]
    return " or ".join(f'<a href="#{escape(one)}"><code>{escape(one)}</code></a>' for one in names)


def _type(schema: Mapping[str, Any]) -> str:
    if reference := schema.get("$ref"):
        return str(reference.rpartition("/")[2])
    if schema.get("type") == "array":
        return f"{_type(schema['items'])}, ..."
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    return str(schema.get("type", "any"))


def _command(method: str, path: str, operation: Mapping[str, Any]) -> str:
    for name, example in _EXAMPLE_IDS.items():
        path = path.replace("{" + name + "}", example)
    words = ["curl"] if method == "GET" else ["curl", "-X", method]
    if "text/event-stream" in operation["responses"].get("200", {}).get("content", {}):
        words.append("-N")
    command = " ".join([*words, f"http://localhost:8000{path}"])
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if "example" in content:
        command += " \\\n     -H 'Content-Type: application/json' \\\n     -d '"
        command += json.dumps(content["example"], ensure_ascii=False).replace("'", "'\\''") + "'"
    return command


def _text(text: str) -> str:
    """Escaped; what stands between backticks is code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if odd % 2 else part for odd, part in enumerate(parts))
