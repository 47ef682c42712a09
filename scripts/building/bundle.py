"""The bundle: a folder with an interpreter, flowd and what both depend on, that runs wherever it
is put.

A real interpreter, not a frozen program: own handlers import whatever they like, processes are
started by `sys.executable -m`, and packages are found by their entry points, as everywhere.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from flowd.installation.program import BUNDLE_MARK, COMMAND, open_to_all
from scripts.building.output import source_epoch
from scripts.building.sbom import write_sbom

# Of the standard library: what only its makers need, or a desktop, or would bring many libraries.
_LEFT_OUT = (
    "__pycache__", "config-*", "dist-packages", "ensurepip", "idlelib", "lib2to3", "site-packages",
    "test", "tests", "tkinter", "turtle.py", "turtledemo", "venv",
    "_ctypes_test*.so", "_curses_panel*.so", "_dbm*.so", "_gdbm*.so", "_test*.so", "_tkinter*.so",
    "_xxtestfuzz*.so", "nis*.so", "readline*.so", "xxlimited*.so",
)  # fmt: skip
# Of every machine itself: they have to fit its kernel and each other.
_OF_THE_MACHINE = (
    "ld-linux", "libc.", "libdl.", "libm.", "libpthread.", "libresolv.", "librt.", "libutil.",
)  # fmt: skip
# In a package's list of its files: what is not kept, and says by its checksum where it was made.
_NOT_KEPT = re.compile(r"\.\./\.\./bin/|[^/]+\.dist-info/direct_url\.json,")


def build_bundle(folder: Path, wheel: Path) -> None:
    """Fill an empty folder; `wheel` is flowd's own."""
    name = f"python{sysconfig.get_python_version()}"
    _copy_interpreter(folder, name)
    _install_packages(folder, wheel)
    _strip(folder)
    libraries = _bring_libraries(folder)
    command = folder / "bin" / "flowd"
    command.write_text(COMMAND.format(python="/usr/bin/env python3"))
    command.chmod(0o755)
    (folder / BUNDLE_MARK).touch()
    write_sbom(folder, libraries)
    compile_all(folder, folder / "lib" / name)
    open_to_all(folder)


def glibc_needed(bundle: Path) -> str:
    """The newest version of a symbol that anything in it asks for."""
    found = {(2, 17)}
    for path in _elf_files(bundle):
        versions = re.findall(rb"GLIBC_2\.(\d+)(?![\d.])", path.read_bytes())
        found |= {(2, int(minor)) for minor in versions}
    return ".".join(map(str, max(found)))


def _copy_interpreter(folder: Path, name: str) -> None:
    library = folder / "lib" / name
    ignore = shutil.ignore_patterns(*_LEFT_OUT)
    standard = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(standard, library, ignore=ignore)
    modules = Path(sysconfig.get_config_var("DESTSHARED"))
    if not modules.is_relative_to(standard):
        shutil.copytree(modules, library / "lib-dynload", ignore=ignore, dirs_exist_ok=True)
    programs = folder / "bin"
    programs.mkdir()
    shutil.copy(Path(sys.base_prefix) / "bin" / name, programs / name)
    for other in ("python3", "python"):
        (programs / other).symlink_to(name)


def _install_packages(folder: Path, wheel: Path) -> None:
    # Where this interpreter looks is its distribution's choice.
    asked = "import site; print(site.getsitepackages()[-1])"
    packages = Path(_output(folder / "bin" / "python3", "-I", "-c", asked))
    assert packages.is_relative_to(folder), packages
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    subprocess.run([*pip, "-qq", "--no-compile", "--target", packages, wheel, "pip"], check=True)
    # Scripts that name this machine's interpreter, and where the wheel was.
    shutil.rmtree(packages / "bin")
    for note in packages.glob("*.dist-info/direct_url.json"):
        note.unlink()
    for record in packages.glob("*.dist-info/RECORD"):
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(line for line in lines if not _NOT_KEPT.match(line)))


def _strip(folder: Path) -> None:
    """Before anything else is done to these files: afterwards it may ruin them."""
    program = shutil.which("strip")
    if program is None:
        sys.exit("strip is needed: sudo apt-get install binutils")
    for file in _elf_files(folder):
        # What a wheel has brought along is changed already.
        if not any(part.endswith(".libs") for part in file.parts):
            subprocess.run([program, "--strip-unneeded", file], check=True)


def _bring_libraries(folder: Path) -> list[Path]:
    """Copy the shared libraries that are needed, and have each file find them from where it is."""
    shelf = folder / "lib"
    files = list(_elf_files(folder))
    brought = []
    while files:
        file = files.pop()
        # What a wheel has brought along it finds by itself.
        found = {name: at for name, at in _needed(file).items() if not at.startswith(str(folder))}
        for name, source in found.items():
            target = shelf / name
            if not target.exists():
                shutil.copy(source, target)
                target.chmod(0o755)
                files.append(target)
                brought.append(target)
        ways = _patchelf("--print-rpath", file).split(":")
        kept = [way for way in ways if way.startswith("$ORIGIN")]
        if found or kept != ways:
            kept += [f"$ORIGIN/{os.path.relpath(shelf, file.parent)}"] if found else []
            _patchelf("--set-rpath", ":".join(kept), file)
    return sorted(brought)


def _elf_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def _needed(file: Path) -> dict[str, str]:
    """Where the loader finds what this needs beside what every machine has, by name."""
    found = {}
    for line in _output("ldd", file).splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        if arrow and not name.startswith(_OF_THE_MACHINE):
            found[name] = rest.split(" (")[0]
    return found


def _patchelf(*arguments: str | Path) -> str:
    return _output(Path(sys.executable).with_name("patchelf"), *arguments)


def _output(*command: str | Path) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def compile_all(folder: Path, place: Path) -> None:
    """So that no start has to, and no time of this machine's is in it."""
    program = [folder / "bin" / "python3", "-I", "-m", "compileall", "-qf"]
    options = ["--invalidation-mode", "unchecked-hash", "-s", folder, "-p", "/"]
    subprocess.run(
        [*program, *options, place],
        check=True,
        env={"PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": str(source_epoch())},
    )
