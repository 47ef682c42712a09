"""A folder of another user: root touches what is that user's, and nothing a link leads to."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from flowd.cli.main import main
from flowd.config import RedisSettings
from flowd.errors import InvalidSettings
from flowd.log_output import LogFile
from flowd.owned_folder import OwnedFolder
from flowd.supervisor.asking import SOCKET_FILE
from flowd.supervisor.embedded_server import EmbeddedServer
from flowd.supervisor.lock import PID_FILE, DataDirLock, is_held
from flowd.tokens import TOKENS_FILE, change_tokens, new_token, read_tokens

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has files to protect from others")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text("not theirs")
    path.chmod(0o640)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a service's user where root runs the tests, else of whoever runs them."""
    path = tmp_path / "data"
    path.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    return path


def plant(folder: Path, name: str, target: Path) -> None:
    (folder / name).symlink_to(target)
    if os.geteuid() == 0:
        os.lchown(folder / name, NOBODY, NOBODY)


def state_of(path: Path) -> tuple[str, int, int, int]:
    found = path.stat()
    return path.read_text(), found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


def make_token(folder: Path) -> None:
    change_tokens(folder, lambda tokens: (*tokens, new_token("ops", "admin")[0]))


def write_log(folder: Path) -> None:
    file = LogFile(folder / "flowd.log", max_bytes=0, max_age_s=0, keep=1)
    file.reopen()
    file.write(b"a line\n")


@pytest.mark.parametrize(
    ("name", "act", "refusal"),
    [
        ("tokens.lock", make_token, InvalidSettings),
        (TOKENS_FILE, make_token, InvalidSettings),
        (PID_FILE, DataDirLock, InvalidSettings),
        ("flowd.log", write_log, OSError),
    ],
)
def test_nothing_is_written_changed_or_given_away_through_a_planted_link(
    folder: Path, victim: Path, name: str, act: Callable[[Path], object], refusal: type[Exception]
) -> None:
    before = state_of(victim)
    plant(folder, name, victim)

    with pytest.raises(refusal):
        act(folder)

    assert state_of(victim) == before


def test_the_servers_files_replace_a_planted_link(tmp_path: Path, victim: Path) -> None:
    before = state_of(victim)
    (tmp_path / "redis.conf").symlink_to(victim)

    EmbeddedServer(RedisSettings(port=0, data_dir=tmp_path)).prepare()

    assert state_of(victim) == before
    assert not (tmp_path / "redis.conf").is_symlink()
    assert stat.S_IMODE((tmp_path / "redis.conf").stat().st_mode) == 0o600


def test_what_a_link_leads_to_is_neither_read_nor_shown(folder: Path, victim: Path) -> None:
    victim.write_text('{"tokens": []}')
    plant(folder, TOKENS_FILE, victim)
    plant(folder, PID_FILE, victim)
    plant(folder, "flowd.log", victim)
    config = folder.parent / "flowd.toml"
    config.write_text(f"[log]\nfile = '{folder / 'flowd.log'}'\n")

    with pytest.raises(InvalidSettings, match="it is a link"):
        read_tokens(folder)
    assert not is_held(folder)
    if os.geteuid() == 0:
        shown = CliRunner().invoke(main, ["logs", "--config", str(config)], env={})
        assert (shown.exit_code, "tokens" in shown.output) == (1, False)


@as_root
def test_a_file_of_roots_under_another_name_is_not_read_either(folder: Path, victim: Path) -> None:
    victim.write_text('{"tokens": []}')
    (folder / TOKENS_FILE).hardlink_to(victim)

    with pytest.raises(InvalidSettings, match="no plain file of the folder's owner"):
        read_tokens(folder)


@as_root
def test_what_root_makes_there_belongs_to_the_owner_of_the_folder(folder: Path) -> None:
    make_token(folder)
    make_token(folder)

    made = {one.name: one.stat() for one in folder.iterdir()}
    assert {name: (one.st_uid, one.st_gid) for name, one in made.items()} == {
        TOKENS_FILE: (NOBODY, NOBODY),
        "tokens.lock": (NOBODY, NOBODY),
    }
    assert {stat.S_IMODE(one.st_mode) for one in made.values()} == {0o600}


@as_root
def test_root_does_not_run_flowd_in_the_data_directory_of_another(folder: Path) -> None:
    with pytest.raises(InvalidSettings, match=rf"belongs to the user {NOBODY}.*as that user"):
        DataDirLock(folder)

    assert list(folder.iterdir()) == []


def test_a_pipe_in_the_place_of_a_file_makes_nobody_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / TOKENS_FILE)

    with pytest.raises(InvalidSettings, match="no plain file"):
        read_tokens(tmp_path)


def test_a_log_file_may_be_a_link_that_its_own_user_made(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "flowd.log").symlink_to(tmp_path / "elsewhere" / "flowd.log")

    write_log(tmp_path)

    assert (tmp_path / "elsewhere" / "flowd.log").read_text() == "a line\n"


def test_whatever_stops_the_writing_the_old_file_is_whole(tmp_path: Path) -> None:
    with OwnedFolder(tmp_path) as folder:
        folder.replace("state", b"old")
        with pytest.raises(TypeError):
            folder.replace("state", "no bytes")  # type: ignore[arg-type]
        assert folder.read("state") == b"old"

    assert [one.name for one in tmp_path.iterdir()] == ["state"]


SERVER = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listens", flush=True)
sys.stdin.read()
"""


def test_what_listens_behind_a_planted_socket_is_not_ended(tmp_path: Path) -> None:
    from flowd.supervisor.embedded_server import _end_orphan

    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    data.mkdir()
    elsewhere.mkdir()
    path = elsewhere / "other.sock"
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(path)],
        cwd=elsewhere,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        (data / "redis.sock").symlink_to(path)

        _end_orphan(data)

        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        assert other.poll() is None
        assert other.stdin is not None
        other.stdin.close()


def test_the_control_socket_is_its_owners_from_the_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import selectors

    from flowd.supervisor.control import ControlServer

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a chmod would follow what was put in its place meanwhile")

    monkeypatch.setattr(os, "chmod", never)
    with selectors.DefaultSelector() as selector:
        server = ControlServer(tmp_path, selector, lambda request: request)
        assert stat.S_IMODE((tmp_path / SOCKET_FILE).stat().st_mode) == 0o600
        server.close()
