"""The single file: a script that unpacks what follows it, once, and starts it from then on.

What it does with what follows it is tried on a bundle of one small script.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from flowd import __version__
from scripts.building import single_file
from scripts.building.output import write_checksum
from scripts.building.sbom import SBOM_FILE
from scripts.building.single_file import build_single_file, write_single_file
from tests.daemon import PATIENCE_S, wait_until
from tests.manual import blocks

# In place of an interpreter: says how it was called, and with what in its environment.
PYTHON = """\
#!/bin/sh
[ "$1" != -c ] || exit 0
printf '%s|' "$@"
env | cut -d= -f1 | sort | tr '\\n' ' '
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python3").write_text(PYTHON)
    (folder / "bin" / "python3").chmod(0o755)
    (folder / "bin" / "flowd").write_text("")
    return folder


@pytest.fixture
def file(bundle: Path, tmp_path: Path) -> Path:
    made = tmp_path / "flowd"
    write_single_file(bundle, made)
    return made


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def environ_of(cache: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(cache), **more}


def run(
    file: Path, environ: Mapping[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [file, *arguments], capture_output=True, text=True, env=environ, timeout=PATIENCE_S
    )


def unpacked(cache: Path) -> list[Path]:
    return sorted((cache / "flowd").glob("[0-9]*"))


def test_it_unpacks_once_and_passes_everything_on(file: Path, cache: Path) -> None:
    first = run(file, environ_of(cache, PYTHONHOME="/x"), "run", "a b", "")
    (folder,) = unpacked(cache)
    before = folder.stat().st_mtime_ns
    second = run(file, environ_of(cache), "--version")

    assert first.stderr == f"unpacking flowd {__version__} into {folder} ...\n"
    assert first.stdout.split("|")[:4] == [f"{folder}/bin/flowd", "run", "a b", ""]
    # Nothing of its own is left in the environment, nor an interpreter's that is not ours.
    assert set(first.stdout.split("|")[4].split()) <= {"PATH", "PWD", "XDG_CACHE_HOME", "_"}
    assert (second.returncode, second.stderr) == (0, "")
    assert folder.stat().st_mtime_ns == before
    assert sorted(path.name for path in (cache / "flowd").iterdir()) == [".lock", folder.name]


def test_the_same_bundle_gives_the_same_file(bundle: Path, file: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    # Where a folder has a size, it keeps the one it had with more in it: here more than a megabyte.
    passing = [copy / "bin" / f"{at}{'x' * 240}" for at in range(5000)]
    for path in passing:
        path.touch()
    for path in passing:
        path.unlink()
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))

    write_single_file(copy, tmp_path / "again")

    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def test_it_is_built_and_copied_to_another_machine_as_the_manual_says(
    bundle: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pattern that fits its checksum and its SBOM too gives these to the program to read."""

    def build(folder: Path, _wheel: Path) -> None:
        shutil.copytree(bundle, folder, dirs_exist_ok=True)
        (folder / SBOM_FILE).touch()

    def typed(commands: str, folder: Path) -> list[str]:
        """The command that the program was given, each time."""
        ended = subprocess.run(
            ["sh", "-ec", commands],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environ_of(cache),
            timeout=PATIENCE_S,
        )
        assert ended.returncode == 0, ended.stderr
        return re.findall(r"/bin/flowd\|([^|]*)\|", ended.stdout)

    monkeypatch.setattr(single_file, "build_bundle", build)
    monkeypatch.setattr(single_file, "build_wheel", lambda folder: folder / "wheel")
    here, there = tmp_path / "dist", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    made = build_single_file(here)
    write_checksum(made)
    assert len(list(here.iterdir())) == 4
    for name in (made.name, f"{made.name}.sha256"):
        # As without rights to run it, by whatever it came.
        shutil.copyfile(here / name, there / name)

    build_and_run, copy_and_run = blocks("The single file", "bash")
    assert typed(build_and_run.splitlines()[-1], tmp_path) == ["demo"]
    assert typed(copy_and_run, there) == ["demo", "start"]


@pytest.mark.parametrize("is_short", [True, False])
def test_a_damaged_file_is_refused_and_leaves_nothing(
    is_short: bool, file: Path, cache: Path
) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-9] if is_short else content[:-9] + b"x" + content[-8:])

    ended = run(file, environ_of(cache))

    assert ended.returncode == 73
    assert ended.stderr.endswith(f"flowd: {file} is damaged or was not loaded to its end\n")
    assert [path.name for path in (cache / "flowd").iterdir()] == [".lock"]


def test_what_cannot_run_here_is_not_kept(bundle: Path, file: Path, cache: Path) -> None:
    (bundle / "bin" / "python3").write_text("#!/bin/sh\nexit 1\n")
    write_single_file(bundle, file)

    ended = run(file, environ_of(cache))

    assert (ended.returncode, "glibc 2.17 or newer" in ended.stderr) == (73, True)
    assert unpacked(cache) == []


def test_a_start_that_is_killed_while_it_unpacks_leaves_the_next_one_nothing_to_do(
    bundle: Path, file: Path, cache: Path
) -> None:
    """At the moment in which everything is there but under another name."""
    waits = cache.parent / "waits"
    # The first time it says that it is tried, and does not end.
    tried = f"[ -e {waits} ] && exit; touch {waits}; exec sleep 600"
    script = f'#!/bin/sh\nif [ "$1" = -c ]; then {tried}; fi\necho ran\n'
    (bundle / "bin" / "python3").write_text(script)
    write_single_file(bundle, file)
    killed = subprocess.Popen([file], env=environ_of(cache), start_new_session=True)
    try:
        wait_until(waits.exists, "it to try what it has unpacked")
        assert unpacked(cache) == []
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    assert len(list((cache / "flowd").glob(".new-*"))) == 1

    assert run(file, environ_of(cache)).stdout == "ran\n"
    assert list((cache / "flowd").glob(".new-*")) == []
    assert len(unpacked(cache)) == 1


def test_of_many_that_start_at_once_one_unpacks(file: Path, cache: Path) -> None:
    started = [
        subprocess.Popen(
            [file, str(at)], env=environ_of(cache), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for at in range(8)
    ]
    said = [process.communicate(timeout=PATIENCE_S) for process in started]

    assert [process.returncode for process in started] == [0] * 8
    assert sum(b"unpacking" in errors for _, errors in said) == 1
    assert [output.split(b"|")[1] for output, _ in said] == [b"%d" % at for at in range(8)]


def test_the_version_before_stays_and_older_ones_go(bundle: Path, file: Path, cache: Path) -> None:
    folders: list[Path] = []
    for at in range(4):
        (bundle / "note").write_text(str(at))
        write_single_file(bundle, file)
        assert run(file, environ_of(cache)).returncode == 0
        folders += [one for one in unpacked(cache) if one not in folders]
        # Whatever the clock of the file system counts in.
        os.utime(folders[-1], (at + 1, at + 1))

    assert unpacked(cache) == sorted(folders[-2:])


def test_what_still_runs_stays_too(bundle: Path, file: Path, cache: Path) -> None:
    shutil.copy(shutil.which("sleep") or "", bundle / "bin" / "runs")
    write_single_file(bundle, file)
    run(file, environ_of(cache))
    (first,) = unpacked(cache)
    with subprocess.Popen([first / "bin" / "runs", "600"]) as running:
        try:
            for at in range(3):
                os.utime(first, (1, 1))
                (bundle / "note").write_text(str(at))
                write_single_file(bundle, file)
                assert run(file, environ_of(cache)).returncode == 0
            assert first in unpacked(cache)
        finally:
            running.kill()


def test_of_a_full_disk_it_says_one_line(file: Path, cache: Path) -> None:
    """tar says one for every file."""
    folder = cache.parent / "programs"
    folder.mkdir()
    (folder / "tar").write_text(
        "#!/bin/sh\nfor file in a b c; do echo tar: $file: No space left >&2; done\nexit 2\n"
    )
    (folder / "tar").chmod(0o755)

    ended = run(file, environ_of(cache, PATH=f"{folder}:{os.environ['PATH']}"))

    assert ended.returncode == 73
    _, *said = ended.stderr.splitlines()
    assert said[0] == "flowd: tar: a: No space left"
    assert re.fullmatch(
        rf"flowd: cannot unpack into {cache}/flowd; is there room for \d+ MB\?", said[1]
    )
    assert len(said) == 2
    assert unpacked(cache) == []


def test_without_a_folder_to_unpack_into_it_says_what_to_set(file: Path, cache: Path) -> None:
    cache.write_text("no folder")

    ended = run(file, environ_of(cache))

    assert (ended.returncode, "XDG_CACHE_HOME may name another" in ended.stderr) == (73, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_not_run(file: Path, cache: Path) -> None:
    run(file, environ_of(cache))
    os.chown(unpacked(cache)[0], 65534, 65534)

    ended = run(file, environ_of(cache))

    assert (ended.returncode, "belongs to another user" in ended.stderr) == (73, True)
    assert ended.stdout == ""


def test_it_is_for_one_kind_of_machine(file: Path, cache: Path) -> None:
    folder = cache.parent / "programs"
    folder.mkdir()
    (folder / "uname").write_text("#!/bin/sh\necho riscv64\n")
    (folder / "uname").chmod(0o755)

    ended = run(file, environ_of(cache, PATH=f"{folder}:{os.environ['PATH']}"))

    assert (ended.returncode, "this machine is riscv64" in ended.stderr) == (73, True)
