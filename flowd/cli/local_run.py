"""Run one workflow on a flowd of its own, which is gone with its folder when the run has ended."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowd.cli.documents import find_files
from flowd.cli.exit_codes import FAILED, INTERRUPTED, UNAVAILABLE
from flowd.cli.local_check import refuse_wrong, settings_file_of
from flowd.cli.outcome import show_end
from flowd.cli.private_flowd import START, FlowdFailed, TemporaryFlowd, leave_on_signals
from flowd.cli.remote import connected, plain
from flowd.cli.unknown_names import warn_of_inputs
from flowd.cli.watching import watch_execution
from flowd.home import DEFAULT_FILE
from flowd.workflow.ids import DEFAULT_QUEUE, is_name
from flowd.workflow.queues import queues_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flowd.cli.commands.apply import Wanted

# Whatever the settings say of these, a run of its own needs them so. Empty is none.
_OWN: Mapping[str, str] = {
    "FLOWD_API__HOST": "127.0.0.1",
    "FLOWD_API__PORT": "0",
    "FLOWD_API__SOCKET": "",
    "FLOWD_API__PROCESSES": "1",
    "FLOWD_API__RATE_LIMIT": "0",
    "FLOWD_REDIS__MODE": "embedded",
    "FLOWD_REDIS__URL": "",
    "FLOWD_REDIS__HOST": "127.0.0.1",
    "FLOWD_REDIS__PORT": "0",
    "FLOWD_REDIS__DURABILITY": "everysec",
    "FLOWD_WORKERS__COUNT": "1",
    "FLOWD_WORKERS__NAME": "worker",
    "FLOWD_WORKERS__GROUPS": "",
    "FLOWD_LOG__FILE": "",
    "FLOWD_SHUTDOWN__GRACE_S": "2",
}


def run_locally(
    file: str,
    workflow: bytes,
    given_input: dict[str, Any] | None,
    *,
    settings_file: Path | None,
    beside: Sequence[str] = (),
    timeout_s: float | None,
    output: str,
) -> None:
    """Ends the program as `flowd run` does, and leaves nothing behind.

    The settings are those of `settings_file`, else those beside the file or of this folder, but
    for what keeps the run apart from every other flowd. `beside` are files and folders whose
    definitions are saved there first.
    """
    if settings_file is None and (named := os.environ.get("FLOWD_CONFIG")):
        settings_file = Path(named)
    used = settings_file_of(file, settings_file)
    saved = _definitions(beside)
    if file != "-":
        refuse_wrong(file, settings_file)
    documents = [workflow, *(one.document.body for one in saved)]
    where = str(used.absolute()) if used else f"the defaults, there is no {DEFAULT_FILE}"
    click.echo(f"starting a private flowd; its settings: {where}", err=True)
    workflow = _without_callback(workflow)
    leave_on_signals()
    try:
        with _private_flowd(used, documents) as flowd:
            # Of another flowd, and the private one knows no tokens.
            os.environ.pop("FLOWD_TOKEN", None)
            flowd.start()
            with connected(api := str(flowd.wait_until_ready()["api"]), file) as client:
                for document in saved:
                    client.put_definition(document.name, document.document.body)
                execution_id = client.submit(workflow, trigger=True, input=given_input)
                warn_of_inputs(json.loads(workflow), given_input)
                if any(map(_asks, documents)):
                    # Nobody else knows its address, and it does not last.
                    said = f"`flowd approve @latest NODE --url {api}`"
                    click.echo(f"answer what it asks with {said}", err=True)
                status = watch_execution(client, execution_id, timeout_s)
                show_end(client, execution_id, status, output, is_kept=False)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except FlowdFailed as error:
        click.echo(f"flowd: {error}", err=True)
        sys.exit(UNAVAILABLE)


def _definitions(beside: Sequence[str]) -> list[Wanted]:
    """Those in these files and folders. Ends the program where one of them cannot be read."""
    from flowd.cli.commands.apply import read_wanted

    wanted, broken = read_wanted(find_files(beside))
    for finding in broken:
        click.echo(plain(str(finding)), err=True)
    if broken:
        sys.exit(FAILED)
    return [one for one in wanted if one.kind.name == "definition"]


def _without_callback(workflow: bytes) -> bytes:
    """Its flowd may be gone before the callback is sent, and nobody but who started it waits."""
    document = json.loads(workflow)
    if document.pop("callback", None) is None:
        return workflow
    click.echo("the callback of the workflow is not called: this run is no one else's", err=True)
    return json.dumps(document).encode()


def _asks(document: bytes) -> bool:
    """Whether a definition that flowd has taken waits for somebody's answer."""
    dag = json.loads(document)["dag"]
    return any(one["handler"] == "signal" for one in (*dag["nodes"], *dag.get("finally", ())))


def _private_flowd(settings_file: Path | None, documents: Iterable[bytes]) -> TemporaryFlowd:
    named = ("--config", str(settings_file.absolute())) if settings_file else ()
    # It has one worker, and nobody else would read what these name.
    queues = {name for document in documents for name in queues_in(document) if is_name(name)}
    read = {"FLOWD_WORKERS__QUEUES": ",".join([DEFAULT_QUEUE, *sorted(queues - {DEFAULT_QUEUE})])}
    flowd = TemporaryFlowd("", (*START, *named), environ={**os.environ, **_OWN, **read})
    flowd.environ["FLOWD_REDIS__DATA_DIR"] = str(flowd.data_dir)
    # Handlers work where they would with `flowd start` here.
    flowd.work_dir = Path.cwd()
    return flowd
