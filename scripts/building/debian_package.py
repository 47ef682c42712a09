"""The Debian package: the bundle in /usr/lib/flowd, and what makes it a service."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from flowd import __version__
from flowd.installation.places import UNITS, Places
from flowd.installation.program import COMMAND, open_to_all
from scripts.building.bundle import build_bundle, glibc_needed
from scripts.building.output import ROOT, blocks_of, source_epoch
from scripts.building.wheel import build_wheel

_SCRIPTS: Final = Path(__file__).with_name("debian")
_PROGRAM: Final = "usr/lib/flowd"
# Where the people of a machine put packages for their own handlers; an upgrade leaves it alone.
_LOCAL_PACKAGES: Final = "/usr/local/lib/flowd"


def build_debian_package(folder: Path) -> Path:
    with tempfile.TemporaryDirectory() as place:
        bundle = Path(place) / "bundle"
        bundle.mkdir()
        build_bundle(bundle, build_wheel(Path(place)))
        return write_debian_package(bundle, folder)


def write_debian_package(bundle: Path, folder: Path, version: str = __version__) -> Path:
    architecture = _output("dpkg", "--print-architecture")
    file = folder / f"flowd_{version}_{architecture}.deb"
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "root"
        root.mkdir()
        _lay_out(bundle, root)
        _write_control(
            root,
            {
                "VERSION": version,
                "ARCHITECTURE": architecture,
                "GLIBC": glibc_needed(bundle),
                "KILOBYTES": str(blocks_of(root, 1024)),
            },
        )
        open_to_all(root)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "--build", root, file],
            check=True,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"SOURCE_DATE_EPOCH": str(source_epoch())},
        )
    return file


def _lay_out(bundle: Path, root: Path) -> None:
    program = root / _PROGRAM
    shutil.copytree(bundle, program, symlinks=True)
    command = program / "bin" / "flowd"
    command.write_text(COMMAND.format(python=f"/{_PROGRAM}/bin/python3"))
    for packages in program.glob("lib/python3*/*-packages"):
        (packages / "local.pth").write_text(f"{_LOCAL_PACKAGES}\n")
    link = root / "usr" / "bin" / "flowd"
    link.parent.mkdir()
    link.symlink_to(Path("..") / "lib" / "flowd" / "bin" / "flowd")
    units = root / "usr" / "lib" / "systemd" / "system"
    units.mkdir(parents=True)
    for name in UNITS:
        text = (ROOT / "flowd" / "installation" / name).read_text()
        (units / name).write_text(text.replace(str(Places().installed), "/usr/bin/flowd"))


def _write_control(root: Path, values: Mapping[str, str]) -> None:
    control = root / "DEBIAN"
    control.mkdir()
    for source in sorted(_SCRIPTS.iterdir()):
        text = source.read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        (control / source.name).write_text(text)
        if source.name != "control":
            (control / source.name).chmod(0o755)


def _output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
