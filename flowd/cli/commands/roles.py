"""`flowd api`, `flowd scheduler`, `flowd worker`: one role, for those with a process manager.

No supervisor, no embedded server: they join the Redis that runs, also that of a `flowd start`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from flowd.cli.options import (
    config_option,
    data_dir_option,
    host_option,
    log_warnings,
    port_option,
    settings_of,
    settings_to_run,
)
from flowd.config import Settings
from flowd.pulse import Pulse


@click.command()
@config_option
@host_option
@port_option
@data_dir_option
def api(config: Path | None, host: str | None, port: int | None, data_dir: str | None) -> None:
    """Serve only the HTTP API until Ctrl-C or SIGTERM."""
    settings = _prepare(
        "api",
        settings_of(config, api__host=host, api__port=port, redis__data_dir=data_dir),
    )
    from flowd.api.http.limits import address_of
    from flowd.supervisor.listener import (
        bind_listener,
        require_tokens,
        take_passed_listener,
        url_of,
    )
    from flowd.supervisor.roles import run_api

    listener = take_passed_listener() or bind_listener(settings.api)
    require_tokens(address_of(listener), settings.redis.data_dir)
    url = url_of(listener)
    run_api(settings, listener, Pulse(lambda: _say(f"flowd api listens on {url}", settings)))


@click.command()
@config_option
@data_dir_option
def scheduler(config: Path | None, data_dir: str | None) -> None:
    """Run only the scheduler until Ctrl-C or SIGTERM."""
    settings = _prepare("scheduler", settings_to_run(config, redis__data_dir=data_dir))
    from flowd.supervisor.roles import run_scheduler

    run_scheduler(settings, Pulse(lambda: _say("flowd scheduler runs", settings)))


@click.command()
@config_option
@click.option("--name", help="Name of the worker; default: WORKER_NAME, or worker-<hostname>.")
@click.option(
    "--queues",
    metavar="NAME,…",
    help="The queues it takes nodes from, the most urgent first; default: those of the settings.",
)
@data_dir_option
def worker(config: Path | None, name: str | None, queues: str | None, data_dir: str | None) -> None:
    """Run only one worker until Ctrl-C or SIGTERM."""
    settings = settings_to_run(
        config, workers__name=name, workers__queues=queues, redis__data_dir=data_dir
    )
    name = settings.workers.name
    settings = _prepare(name, settings)
    from flowd.supervisor.roles import run_worker

    run_worker(settings, name, Pulse(lambda: _say(f"flowd worker {name} runs", settings)))


def _prepare(name: str, settings: Settings) -> Settings:
    """Name this process, and make sure of its Redis before anything heavy is loaded."""
    import setproctitle

    from flowd.log import set_up_log
    from flowd.supervisor.child import answer_signals
    from flowd.supervisor.embedded_server import locate_redis

    setproctitle.setproctitle(f"flowd: {name}")
    set_up_log(process=name, **asdict(settings.log))
    log_warnings(settings)
    answer_signals()
    return locate_redis(settings)


def _say(what: str, settings: Settings) -> None:
    click.echo(f"{what} and uses the Redis at {settings.redis.address}")
