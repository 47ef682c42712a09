"""The single file: a script, and behind it the bundle, which the script unpacks once."""

from __future__ import annotations

import gzip
import hashlib
import io
import platform
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from flowd import __version__
from scripts.building.bundle import build_bundle, glibc_needed
from scripts.building.output import blocks_of, source_epoch, write_checksum
from scripts.building.sbom import SBOM_FILE
from scripts.building.wheel import build_wheel

_HEAD: Final = Path(__file__).with_name("head.sh")


def build_single_file(folder: Path) -> Path:
    """`flowd-VERSION-linux-MACHINE`, its SBOM beside it."""
    file = folder / f"flowd-{__version__}-linux-{platform.machine()}"
    with tempfile.TemporaryDirectory() as place:
        bundle = Path(place) / "bundle"
        bundle.mkdir()
        build_bundle(bundle, build_wheel(Path(place)))
        write_single_file(bundle, file)
        sbom = shutil.copy(bundle / SBOM_FILE, folder / f"{file.name}.cdx.json")
    write_checksum(Path(sbom))
    return file


def write_single_file(bundle: Path, file: Path) -> None:
    payload = _packed(bundle)
    file.write_bytes(_head(bundle, payload) + payload)
    file.chmod(0o755)


def _packed(bundle: Path) -> bytes:
    """The same bytes for the same files, whoever has made them when."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        for path in sorted(bundle.rglob("*")):
            archive.add(path, path.relative_to(bundle), recursive=False, filter=_plain)
    return packed.getvalue()


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = source_epoch()
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _head(bundle: Path, payload: bytes) -> bytes:
    digest = hashlib.sha256(payload).hexdigest()
    text = _HEAD.read_text()
    for name, value in {
        "VERSION": __version__,
        "MACHINE": platform.machine(),
        "DIGEST": digest,
        "SHORT": digest[:12],
        "MEGABYTES": str(blocks_of(bundle, 4096) * 4096 // 1_000_000 + 1),
        "GLIBC": glibc_needed(bundle),
    }.items():
        text = text.replace(f"@{name}@", value)
    # It counts its own digits; each of the two places has as many as the name is long.
    offset = len(text.encode()) + 1
    return text.replace("@OFFSET@", f"{offset:0{len('@OFFSET@')}d}").encode()
