"""The libraries of the dashboard, byte for byte as they were published, and `vendor.lock.json`.

Without arguments it packs each by npm, checks it against npm's integrity and copies what is needed.
`--check` needs no network: every file is the one the lock names, and there is no other.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

WEB: Final = Path(__file__).parent.parent / "flowd" / "web"
VENDOR: Final = WEB / "static" / "vendor"
LOCK: Final = WEB / "vendor.lock.json"
# Of each package: the name of our file, and where it stands in the package.
PACKAGES: Final = {
    "preact": {
        "preact.mjs": "dist/preact.mjs",
        "preact-hooks.mjs": "hooks/dist/hooks.mjs",
        "preact.LICENSE.txt": "LICENSE",
    },
    "@preact/signals-core": {
        "signals-core.mjs": "dist/signals-core.mjs",
        "signals-core.LICENSE.txt": "LICENSE",
    },
    "@preact/signals": {"signals.mjs": "dist/signals.mjs", "signals.LICENSE.txt": "LICENSE"},
    "htm": {"htm.mjs": "dist/htm.mjs", "htm.LICENSE.txt": "LICENSE"},
}


def refresh() -> list[dict[str, Any]]:
    """Fetch every package; what the lock says of them."""
    VENDOR.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        return [_fetch(name, files, Path(folder)) for name, files in PACKAGES.items()]


def _fetch(name: str, files: dict[str, str], folder: Path) -> dict[str, Any]:
    pack = ["npm", "pack", "--json", f"{name}@latest"]
    packed = subprocess.run(pack, cwd=folder, check=True, capture_output=True)
    (about,) = json.loads(packed.stdout)
    archive = folder / about["filename"]
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if about["integrity"] != f"sha512-{digest}":
        raise SystemExit(f"{name}: the package is not the one npm knows")
    with tarfile.open(archive) as package:
        for own, theirs in files.items():
            member = package.extractfile(f"package/{theirs}")
            assert member is not None
            (VENDOR / own).write_bytes(member.read())
        manifest = package.extractfile("package/package.json")
        assert manifest is not None
        licence = json.load(manifest)["license"]
    return {
        "name": name,
        "version": about["version"],
        "integrity": about["integrity"],
        "license": licence,
        "files": {own: {"from": one, "sha256": _sha256(own)} for own, one in files.items()},
    }


def _sha256(name: str) -> str:
    return hashlib.sha256((VENDOR / name).read_bytes()).hexdigest()


def differences() -> list[str]:
    """How the files differ from the lock; none where they do not."""
    wanted = {
        name: file["sha256"]
        for package in json.loads(LOCK.read_text())
        for name, file in package["files"].items()
    }
    found = {path.name: _sha256(path.name) for path in VENDOR.iterdir()}
    return [
        f"flowd/web/static/vendor/{name} is not the file of vendor.lock.json"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    ]


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        raise SystemExit("\n".join(differences()) or 0)
    LOCK.write_text(json.dumps(refresh(), indent=2) + "\n")


if __name__ == "__main__":
    main()
