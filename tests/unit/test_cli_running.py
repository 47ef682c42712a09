"""Which flowd a command means that names none."""

from __future__ import annotations

import os
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from flowd import Client
from flowd.cli.commands.submit import _is_saved
from flowd.cli.documents import find_files
from flowd.cli.local_check import settings_file_of
from flowd.cli.options import settings_of
from flowd.cli.profiles import locate
from flowd.cli.running import data_dir_of
from flowd.errors import InvalidSettings
from flowd.supervisor.asking import ControlUnavailable


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in, and a machine without a service."""
    for name in os.environ:
        if name.startswith(("FLOWD_", "REDIS_")):
            monkeypatch.delenv(name)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("flowd.cli.options.MACHINE_FILE", tmp_path / "machine.toml")
    return here


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> dict[Path, str]:
    """Where supervisors answer, by data directory, and what they say of their API."""
    found: dict[Path, str] = {}

    def ask(data_dir: Path, _command: str, **_: object) -> dict[str, Any]:
        if data_dir not in found:
            raise ControlUnavailable(f"{data_dir}")
        return {"api": found[data_dir]}

    monkeypatch.setattr("flowd.supervisor.asking.ask", ask)
    monkeypatch.setattr("flowd.cli.at_home.ask", ask)
    return found


def found_api(*, has_token: bool = False, **environ: str) -> Result:
    @click.command()
    @click.pass_context
    def command(ctx: click.Context) -> None:
        click.echo(locate(ctx, None, has_token=has_token).url)

    return CliRunner().invoke(command, env=environ)


@contextmanager
def closed(folder: Path) -> Iterator[None]:
    """To this process too, whoever it runs as."""
    folder.chmod(0)
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o700)


@pytest.mark.parametrize(
    ("settings", "environ", "url"),
    [
        ("", {}, "http://127.0.0.1:8000"),
        ("port = 18200", {}, "http://127.0.0.1:18200"),
        ('host = "0.0.0.0"', {}, "http://localhost:8000"),
        ('host = "::1"', {}, "http://[::1]:8000"),
        ("port = 18200", {"FLOWD_API__PORT": "18201"}, "http://127.0.0.1:18201"),
        ('socket = "/run/api.sock"', {}, "unix:/run/api.sock"),
    ],
)
@pytest.mark.usefixtures("running")
def test_the_settings_of_the_folder_say_where_the_api_is(
    folder: Path, settings: str, environ: dict[str, str], url: str
) -> None:
    (folder / "flowd.toml").write_text(f"[api]\n{settings}\n")

    assert found_api(**environ).output == f"{url}\n"


@pytest.mark.usefixtures("running")
def test_whoever_may_not_read_the_settings_of_the_machine_is_told_who_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of an installed flowd is closed: its `.env` may not even be looked for."""
    settings = tmp_path / "etc" / "flowd.toml"
    settings.parent.mkdir()
    settings.touch()
    monkeypatch.setattr("flowd.cli.options.MACHINE_FILE", settings)
    with closed(settings.parent):
        refused = found_api().exception
        with pytest.raises(InvalidSettings) as also_refused:
            data_dir_of(None, None)

    reason = f"{settings}: cannot read it: Permission denied; ask as its owner, or with sudo"
    assert reason in str(refused)
    assert reason in str(also_refused.value)


def test_a_folder_that_may_not_be_looked_into_is_said_so(folder: Path) -> None:
    """As `sudo -u somebody flowd start` in a folder of root's."""
    with closed(folder):
        with pytest.raises(InvalidSettings) as refused:
            settings_of(None)
        found = settings_file_of("-", None)

    reason = "flowd.toml: cannot read it: Permission denied; ask as its owner, or with sudo"
    assert reason in str(refused.value)
    assert found == Path("flowd.toml")


def test_where_nobody_may_look_a_file_is_read_and_a_name_is_that_of_a_saved_workflow(
    folder: Path,
) -> None:
    file = str(folder / "report.yaml")
    with closed(folder):
        assert list(find_files([file])) == [file]
        assert _is_saved("report")
        assert not _is_saved("report.yaml")


def test_a_supervisor_that_answers_knows_better_than_its_settings(
    folder: Path, running: dict[Path, str]
) -> None:
    (folder / "flowd.toml").write_text("[api]\nport = 0\n")
    running[folder / ".flowd"] = "http://127.0.0.1:45678"

    assert found_api().output == "http://127.0.0.1:45678\n"
    assert found_api(FLOWD_API__PORT="0").output == "http://127.0.0.1:45678\n"


def test_a_broken_file_still_leads_to_the_flowd_that_runs(
    folder: Path, running: dict[Path, str]
) -> None:
    (folder / "flowd.toml").write_text('[redis]\ndata_dir = "elsewhere"\n[api\nport = 18200\n')
    running[folder / "elsewhere"] = "http://127.0.0.1:45678"

    assert found_api().output == "http://127.0.0.1:45678\n"


@pytest.mark.parametrize(
    "text",
    [
        "[api]\nport = 18200\n[workers]\ncuont = 2\n",
        "[api]\nport = 'x'\n",
        "[api\nport = 18200\n",
    ],
)
def test_a_broken_file_of_a_flowd_that_does_not_run_leads_to_no_other_one(
    folder: Path, running: dict[Path, str], text: str
) -> None:
    """A typo anywhere in the file sent workflows to whatever listened on the default port."""
    (folder / "flowd.toml").write_text(text)

    refused = found_api()
    # An address in the environment is no reason to ask the one of the folder instead.
    running[folder / ".flowd"] = "http://127.0.0.1:45678"
    meant = found_api(FLOWD_API__SOCKET="/run/api.sock")

    for one in (refused, meant):
        assert isinstance(one.exception, InvalidSettings), one.output
        assert "flowd.toml" in str(one.exception)
    assert found_api().output == "http://127.0.0.1:45678\n"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("flowd.toml", '[redis]\ndata_dir = "elsewhere"\n'),
        ("flowd.toml", 'redis = { data_dir = "elsewhere" }\n'),
        (".env", "FLOWD_REDIS__DATA_DIR=elsewhere\n"),
    ],
)
def test_another_flowd_in_the_usual_place_is_not_taken_for_it(
    folder: Path, running: dict[Path, str], file: str, text: str
) -> None:
    (folder / file).write_text(text)
    running[folder / ".flowd"] = "http://127.0.0.1:1"
    running[folder / "elsewhere"] = "http://127.0.0.1:45678"

    assert found_api().output == "http://127.0.0.1:45678\n"
    named = {"FLOWD_REDIS__DATA_DIR": str(folder / ".flowd")}
    assert found_api(**named).output == "http://127.0.0.1:1\n"


@pytest.mark.usefixtures("running")
def test_a_port_nobody_knows_is_no_address(folder: Path) -> None:
    (folder / "flowd.toml").write_text("[api]\nport = 0\n")

    ended = found_api()

    assert (ended.exit_code, f"does not run in {folder}" in ended.output) == (69, True)


def test_a_folder_without_a_flowd_leads_to_the_service_of_the_machine(
    folder: Path, tmp_path: Path, running: dict[Path, str]
) -> None:
    (tmp_path / "machine.toml").write_text('[api]\nport = 18300\n[redis]\ndata_dir = "data"\n')

    assert found_api().output == "http://127.0.0.1:18300\n"
    running[tmp_path / "data"] = "http://127.0.0.1:18301"
    assert found_api().output == "http://127.0.0.1:18301\n"
    # An address in the environment was meant for this very command.
    assert found_api(FLOWD_API__PORT="18302").output == "http://127.0.0.1:18302\n"
    (folder / ".flowd").mkdir()
    assert found_api().output == "http://127.0.0.1:8000\n"


@pytest.mark.usefixtures("running")
def test_below_the_folder_of_a_flowd_it_is_that_of_the_nearest(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "machine.toml").write_text("[api]\nport = 18300\n")
    (folder / "flowd.toml").write_text("[api]\nport = 18200\n")
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)

    assert found_api().output == "http://127.0.0.1:18200\n"
    assert found_api(has_token=True).output == "http://127.0.0.1:18200\n"
    assert data_dir_of(None, None) == folder / ".flowd"
    # A start without a file has left its data alone.
    (folder / "a" / ".flowd").mkdir()
    assert data_dir_of(None, None) == folder / "a" / ".flowd"
    assert found_api().output == "http://127.0.0.1:8000\n"
    (below / "flowd.toml").write_text("[api]\nport = 18201\n")
    assert found_api().output == "http://127.0.0.1:18201\n"


def test_what_runs_below_the_folder_of_a_flowd_is_found_by_its_supervisor(
    folder: Path, running: dict[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "below").mkdir()
    (folder / ".flowd").mkdir()
    running[folder / ".flowd"] = "http://127.0.0.1:45678"
    monkeypatch.chdir(folder / "below")

    assert found_api().output == "http://127.0.0.1:45678\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
@pytest.mark.usefixtures("running")
def test_what_another_user_has_put_above_is_passed_over(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write to /tmp would decide what a command in /tmp/mine asks."""
    (tmp_path / "flowd.toml").write_text("[api]\nport = 18300\n")
    (folder / "flowd.toml").write_text("[api]\nport = 18200\n")
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    os.chown(folder / "flowd.toml", 12345, -1)

    assert found_api().output == "http://127.0.0.1:18300\n"
    monkeypatch.setenv("SUDO_UID", "12345")
    assert found_api().output == "http://127.0.0.1:18200\n"


def test_a_token_is_not_sent_where_the_file_of_another_user_says(
    folder: Path, running: dict[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "flowd.toml").write_text('[api]\nhost = "192.0.2.1"\n')
    running[folder / ".flowd"] = "http://192.0.2.1:8000"
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    monkeypatch.setenv("SUDO_UID", str(os.getuid() + 1))
    if os.getuid() == 0:
        os.chown(folder / "flowd.toml", 12345, -1)

    ended = found_api(has_token=True)

    assert (ended.exit_code, "belongs to another user" in ended.output) == (2, True), ended.output
    assert found_api(has_token=False).exit_code == 0


def test_a_client_speaks_to_the_unix_socket_of_an_api(tmp_path: Path) -> None:
    class Reply(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            body = b'{"execution_id": "e", "status": "RUNNING"}'
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    path = tmp_path / "api.sock"
    with socketserver.UnixStreamServer(str(path), Reply) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with Client(f"unix://{path}") as client:
            assert (client.url, client.status("e")) == (f"unix:{path}", "RUNNING")
        server.shutdown()


def test_a_home_nobody_knows_is_no_traceback(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user has no entry in passwd, and no HOME."""

    def expanduser(_path: Path) -> Path:
        raise RuntimeError("could not determine home directory")

    monkeypatch.setattr(Path, "expanduser", expanduser)

    assert data_dir_of(None, "~/x") == folder / "~" / "x"
