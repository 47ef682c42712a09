"""The dashboard: its page for an address, and the files that page loads.

The files are read once, and packed when they are first asked for. Their addresses hold a digest of
all of them: a browser keeps them for as long as it likes, and loads them anew after an upgrade.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from functools import cache
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

_HERE: Final = Path(__file__).parent
STATIC: Final = _HERE / "static"
# What modules import by name, and where it stands.
IMPORTS: Final = {
    "preact": "vendor/preact.mjs",
    "preact/hooks": "vendor/preact-hooks.mjs",
    "@preact/signals-core": "vendor/signals-core.mjs",
    "@preact/signals": "vendor/signals.mjs",
    "htm": "vendor/htm.mjs",
}
_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
# A file is loaded at once where another says `from` it; what `import()` loads comes later.
_FROM: Final = re.compile(r"""\bfrom\s*["']([\w@./-]+)["']""")
# No view lies deeper.
DEPTH_MAX: Final = 8
_FOREVER: Final = "public, max-age=31536000, immutable"
HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "vary": "accept-encoding",
}


class File(NamedTuple):
    """What is answered: `packed` is the same by gzip."""

    content: bytes
    packed: bytes
    headers: dict[str, str]


@cache
def _contents() -> dict[str, bytes]:
    found = (path for path in sorted(STATIC.rglob("*")) if path.suffix in _TYPES)
    return {path.relative_to(STATIC).as_posix(): path.read_bytes() for path in found}


@cache
def version() -> str:
    """A digest of all files, the page's own too."""
    digest = hashlib.sha256(_template().encode())
    for name, content in _contents().items():
        digest.update(b"%b %d\n%b" % (name.encode(), len(content), content))
    return digest.hexdigest()[:16]


def asset(path: str) -> File | None:
    """The file of an address `<version>/<name>`; of another version no browser is to keep it."""
    asked, _, name = path.partition("/")
    if name not in _contents():
        return None
    found = _packed(name)
    if asked == version():
        return found
    return found._replace(headers=found.headers | {"cache-control": "no-store"})


@cache
def _packed(name: str) -> File:
    kind = {"content-type": _TYPES[Path(name).suffix], "cache-control": _FOREVER}
    return _file(_contents()[name], kind)


@cache
def page(depth: int) -> File:
    """The page for an address so many folders below its root; -1 is the root without a slash.

    All it names is relative, since only the browser knows what a proxy has put before it.
    """
    root = "./ui/" if depth < 0 else "../" * depth or "./"
    static = f"{root}static/{version()}/"
    imports = {name: static + path for name, path in IMPORTS.items()}
    text = json.dumps({"imports": imports}, separators=(",", ":"))
    preloads = "\n".join(
        f'<link rel="modulepreload" href="{escape(static + name)}">' for name in first_modules()
    )
    html = _template().format(static=escape(static), importmap=text, preloads=preloads)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self'; "
        "img-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )
    headers = {"content-type": "text/html; charset=utf-8", "cache-control": "no-cache"}
    return _file(html.encode(), headers | {"content-security-policy": policy})


@cache
def first_modules() -> tuple[str, ...]:
    """What the page loads before it shows anything: `app.js`, and all that stands behind it."""
    found: dict[str, None] = {}
    left = ["app.js"]
    while left:
        name = left.pop(0)
        if name in found:
            continue
        found[name] = None
        for target in _FROM.findall(_contents()[name].decode()):
            if target in IMPORTS:
                left.append(IMPORTS[target])
            else:
                # The browser's rule: beside the file that says so.
                resolved = (STATIC / name).parent.joinpath(target).resolve()
                left.append(resolved.relative_to(STATIC).as_posix())
    return tuple(found)


@cache
def _template() -> str:
    return (_HERE / "dashboard.html").read_text("utf-8")


def _file(content: bytes, headers: dict[str, str]) -> File:
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    packed = gzip.compress(content, 9, mtime=0)
    return File(content, packed, HEADERS | headers | {"etag": etag})
