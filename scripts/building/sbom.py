"""The SBOM of a bundle, in CycloneDX: its packages, its interpreter, and the libraries of both."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from flowd import __version__
from scripts.building.output import source_epoch

SBOM_FILE: Final = "sbom.cdx.json"


def write_sbom(bundle: Path, libraries: Sequence[Path]) -> None:
    program = Path(sys.executable).with_name("cyclonedx-py")
    options = ["environment", "--no-validate", "--output-reproducible", "--of", "JSON"]
    listed = subprocess.run(
        [program, *options, bundle / "bin" / "python3"],
        stdout=subprocess.PIPE,
        check=True,
        env=os.environ | {"SOURCE_DATE_EPOCH": str(source_epoch())},
    )
    document = json.loads(listed.stdout)
    flowd = next(one for one in document["components"] if one["name"] == "flowd")
    document["components"].remove(flowd)
    document["metadata"]["component"] = flowd | {"type": "application", "version": __version__}
    document["components"] += [_interpreter(), *map(_library, libraries)]
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    if flaw := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"the SBOM is not CycloneDX: {flaw}")
    (bundle / SBOM_FILE).write_text(text)


def _interpreter() -> dict[str, Any]:
    version = platform.python_version()
    return {
        "type": "application",
        "bom-ref": f"cpython=={version}",
        "name": "cpython",
        "version": version,
        "licenses": [{"license": {"id": "Python-2.0"}}],
        "purl": f"pkg:generic/python@{version}",
    }


def _library(file: Path) -> dict[str, Any]:
    """Known by its content: what its version is, its name need not say."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return {
        "type": "library",
        "bom-ref": file.name,
        "name": file.name,
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }
