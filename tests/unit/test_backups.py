"""Backups of the embedded server's files: whole ones or none, put back where nothing is lost."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flowd.cli.main import main
from flowd.config import RedisSettings
from flowd.errors import ServerFailed
from flowd.owned_folder import OwnedFolder
from flowd.supervisor.backups import back_up, restore
from flowd.supervisor.bare_redis import ProbeResult
from flowd.supervisor.embedded_server import EmbeddedServer
from flowd.supervisor.lock import DataDirLock
from tests.unit.test_supervisor_lock import holder_of

NOBODY = 65534
BASE, INCREMENT = "appendonly.aof.1.base.rdb", "appendonly.aof.1.incr.aof"
MANIFEST = f"file {BASE} seq 1 type b\nfile {INCREMENT} seq 1 type i\n"


def write_data(data_dir: Path, text: str) -> None:
    files = data_dir / "appendonlydir"
    files.mkdir(parents=True, exist_ok=True)
    (files / BASE).write_text(f"base of {text}")
    (files / INCREMENT).write_text(f"writes of {text}")
    (files / "appendonly.aof.manifest").write_text(MANIFEST)


def data_of(folder: Path) -> dict[str, str]:
    return {one.name: one.read_text() for one in (folder / "appendonlydir").iterdir()}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    write_data(tmp_path / "data", "today")
    return tmp_path / "data"


def flowd(*arguments: str | Path, folder: Path) -> Result:
    environ = {"FLOWD_REDIS__DATA_DIR": str(folder), "FLOWD_REDIS__MODE": "embedded"}
    return CliRunner().invoke(main, [str(one) for one in arguments], env=environ)


def test_each_backup_is_a_folder_of_its_own_with_the_tokens(data_dir: Path, tmp_path: Path) -> None:
    (data_dir / "tokens.json").write_text("[]")
    made = []
    for text in ("monday", "tuesday"):
        write_data(data_dir, text)
        ended = flowd("backup", tmp_path / "backups", folder=data_dir)
        assert ended.exit_code == 0, ended.output
        made.append(Path(ended.stdout.strip()))
        assert data_of(made[-1]) == data_of(data_dir)

    assert sorted((tmp_path / "backups").iterdir()) == made
    assert data_of(made[0])[INCREMENT] == "writes of monday"
    assert (made[0] / "tokens.json").read_text() == "[]"
    assert stat.S_IMODE(made[0].stat().st_mode) == 0o700
    assert stat.S_IMODE((made[0] / "tokens.json").stat().st_mode) == 0o600


def test_only_as_many_as_asked_for_are_kept(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    (folder / "flowd-of-another-kind").mkdir(parents=True)
    made = [back_up(data_dir, folder) for _ in range(3)]
    made.append(back_up(data_dir, folder, keep=2))

    assert sorted(folder.iterdir()) == [*made[-2:], folder / "flowd-of-another-kind"]


def test_files_that_are_rewritten_meanwhile_are_those_of_one_moment(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server takes away what the manifest named as soon as others are in its place."""
    files = data_dir / "appendonlydir"
    newer = MANIFEST.replace(".1.", ".2.").replace("seq 1", "seq 2")
    opened = OwnedFolder.open

    def rewrite_first(self: OwnedFolder, name: str, flags: int = os.O_RDONLY) -> int:
        if name == INCREMENT and (files / BASE).exists():
            (files / BASE.replace(".1.", ".2.")).write_text("new base")
            (files / INCREMENT.replace(".1.", ".2.")).write_text("new writes")
            (files / "appendonly.aof.manifest").write_text(
                f"{newer}file {BASE} seq 1 type h\n",
            )
            (files / BASE).unlink()
            (files / INCREMENT).unlink()
        return opened(self, name, flags)

    monkeypatch.setattr(OwnedFolder, "open", rewrite_first)
    made = back_up(data_dir, tmp_path / "backups")

    assert data_of(made) == {
        BASE.replace(".1.", ".2."): "new base",
        INCREMENT.replace(".1.", ".2."): "new writes",
        "appendonly.aof.manifest": newer,
    }


def test_a_backup_that_fails_leaves_nothing_and_says_why(data_dir: Path, tmp_path: Path) -> None:
    (data_dir / "appendonlydir" / BASE).write_bytes(b"x" * 100_000)
    command = 'ulimit -f 16; exec "$0" -m flowd.cli.main backup "$1" --data-dir "$2"'
    ended = subprocess.run(
        ["bash", "-c", command, sys.executable, str(tmp_path / "backups"), str(data_dir)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"FLOWD_REDIS__MODE": "embedded"},
    )

    assert ended.returncode == 1
    assert "File too large" in ended.stderr
    assert list((tmp_path / "backups").iterdir()) == []


def test_one_that_is_cut_off_is_none_and_the_next_takes_it_away(
    data_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from flowd.supervisor import backups\n"
        "backups._copy_tokens = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "backups.back_up(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(data_dir), str(folder)])
    assert ended.returncode == -signal.SIGKILL
    assert [one.name for one in folder.iterdir()] == [".unfinished"]
    refused = flowd("restore", folder, folder=tmp_path / "empty")
    assert refused.exit_code == 1
    assert "is no backup" in refused.stderr

    made = back_up(data_dir, folder)

    assert list(folder.iterdir()) == [made]
    assert data_of(made) == data_of(data_dir)


def test_a_folder_without_data_is_not_backed_up(tmp_path: Path) -> None:
    ended = flowd("backup", tmp_path / "backups", folder=tmp_path)

    assert ended.exit_code == 1
    assert "there are no data of a flowd" in ended.stderr
    assert list((tmp_path / "backups").iterdir()) == []


@pytest.mark.parametrize(
    "environ",
    [
        {"FLOWD_REDIS__MODE": "external"},
        {"FLOWD_REDIS__URL": "redis://other/0"},
        {"FLOWD_REDIS__MODE": "auto", "REDIS_PORT": "7777"},
    ],
)
@pytest.mark.parametrize("command", ["backup", "restore"])
def test_the_data_of_another_redis_are_left_to_its_own_means(
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    environ: dict[str, str],
) -> None:
    monkeypatch.setattr("flowd.supervisor.bare_redis.probe", lambda _: ProbeResult.READY)
    given = {"FLOWD_REDIS__DATA_DIR": str(data_dir)} | environ
    ended = CliRunner().invoke(main, [command, str(tmp_path / "backups")], env=given)

    assert ended.exit_code == 1
    assert "which it does not run itself" in ended.stderr


def test_a_restore_refuses_what_would_lose_something(data_dir: Path, tmp_path: Path) -> None:
    made = back_up(data_dir, tmp_path / "backups")
    write_data(data_dir, "later")

    refused = flowd("restore", made, folder=data_dir)
    assert refused.exit_code == 1
    assert "--replace" in refused.stderr
    parent = flowd("restore", tmp_path / "backups", folder=data_dir)
    assert f"the newest backup in it is {made}" in parent.stderr
    with holder_of(data_dir):
        runs = flowd("restore", made, "--replace", folder=data_dir)
    assert runs.exit_code == 75
    assert "stop it with `flowd stop`" in runs.stderr
    assert data_of(data_dir)[INCREMENT] == "writes of later"


def test_a_restore_keeps_what_it_replaces(data_dir: Path, tmp_path: Path) -> None:
    (data_dir / "tokens.json").write_text("[]")
    made = back_up(data_dir, tmp_path / "backups")
    write_data(data_dir, "later")
    (data_dir / "tokens.json").write_text("[1]")

    ended = flowd("restore", made, "--replace", folder=data_dir)

    assert ended.exit_code == 0, ended.output
    assert data_of(data_dir)[INCREMENT] == "writes of today"
    # A token that was revoked since stays so.
    assert (data_dir / "tokens.json").read_text() == "[1]"
    (before,) = data_dir.glob("appendonlydir.before-*")
    assert str(before) in ended.stdout
    assert (before / INCREMENT).read_text() == "writes of later"

    empty = tmp_path / "another machine"
    assert restore(made, empty, replace=False) is None
    assert data_of(empty) == data_of(made)
    assert (empty / "tokens.json").read_text() == "[]"


def test_no_flowd_starts_empty_where_a_restore_was_cut_off(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = back_up(data_dir, tmp_path / "backups")
    rename: Callable[[OwnedFolder, str, str], None] = OwnedFolder.rename

    def rename_once(self: OwnedFolder, name: str, new: str) -> None:
        if name.endswith(".restoring"):
            raise KeyboardInterrupt
        rename(self, name, new)

    with monkeypatch.context() as patched:
        patched.setattr(OwnedFolder, "rename", rename_once)
        with pytest.raises(KeyboardInterrupt):
            restore(made, data_dir, replace=True)

    server = EmbeddedServer(RedisSettings(data_dir=data_dir))
    with pytest.raises(ServerFailed, match=r"was cut off; run `flowd restore` again"):
        server.prepare()
    restore(made, data_dir, replace=False)
    server.prepare()
    assert data_of(data_dir) == data_of(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root restores for another user")
def test_root_restores_for_the_user_of_the_service(data_dir: Path, tmp_path: Path) -> None:
    made = back_up(data_dir, tmp_path / "backups")
    target = tmp_path / "service"
    target.mkdir(mode=0o700)
    os.chown(target, NOBODY, NOBODY)

    restore(made, target, replace=False)

    for path in (target / "appendonlydir", *(target / "appendonlydir").iterdir()):
        assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)
    (target / "appendonlydir").rename(target / "elsewhere")
    (target / "appendonlydir").symlink_to(tmp_path / "data" / "appendonlydir")
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        back_up(target, tmp_path / "backups")


def test_the_lock_is_free_after_a_restore(data_dir: Path, tmp_path: Path) -> None:
    restore(back_up(data_dir, tmp_path / "backups"), data_dir, replace=True)

    DataDirLock(data_dir).release()
