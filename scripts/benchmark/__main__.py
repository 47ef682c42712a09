"""The command line of the bench."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import orjson

from flowd.log import set_up_log
from scripts.benchmark import peers, report
from scripts.benchmark.bench import Bench
from scripts.benchmark.figures import WORKLOADS
from scripts.benchmark.picture import as_svg
from scripts.benchmark.runner import run_workloads
from scripts.benchmark.sizes import TINY, Sizes
from scripts.benchmark.stack import DURABILITIES, NO_PERSISTENCE


def _chosen(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    if value is None:
        return WORKLOADS
    wanted = [name.strip().upper() for name in value.split(",")]
    unknown = [name for name in wanted if name not in WORKLOADS]
    if unknown:
        raise click.BadParameter(f"there is no {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    return tuple(name for name in WORKLOADS if name in wanted)


@click.command()
@click.option("--only", metavar="W1,W3", callback=_chosen, help="These workloads and no others.")
@click.option("--repeat", type=click.IntRange(min=1), help="Repetitions of each; 5 by default.")
@click.option("--tiny", is_flag=True, help="Tiny sizes, once: shows that it works, not how fast.")
@click.option(
    "--durability",
    type=click.Choice(DURABILITIES),
    default=NO_PERSISTENCE,
    show_default=True,
    help="What the server writes to disk. W1 to W3 are run with always, too; W4 as shipped.",
)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    default="/var/tmp",
    show_default=True,
    help="Where the servers keep their data meanwhile; on a disk, for always.",
)
@click.option(
    "--peers",
    "with_peers",
    is_flag=True,
    help="Install Huey and BullMQ into a folder of the bench's, and run W1, W2, W3 and W5 of them.",
)
@click.option("--json", "json_file", type=click.File("wb"), help="Write all readings there.")
@click.option("--svg", "svg_file", type=click.File("wb"), help="Draw the ratios there.")
def main(
    only: tuple[str, ...],
    repeat: int | None,
    tiny: bool,
    durability: str,
    folder: Path,
    with_peers: bool,
    json_file: Any,
    svg_file: Any,
) -> None:
    """Measure flowd beside the least this machine needs, in under ten minutes on two cores.

    Every run checks that each node was completed exactly once: exits 1 when that did not hold.
    """
    # Ended in order, so that nothing stays behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # What flowd does in this process is told among the figures only where it goes wrong.
    set_up_log(level="warning")
    repetitions = repeat or (1 if tiny else 5)
    own_folder = Path(tempfile.mkdtemp(prefix="flowd-bench-", dir=folder))
    try:
        bench = Bench(own_folder, TINY if tiny else Sizes(), durability)
        environment, settings = report.environment(), report.settings(bench, repetitions)
        results, busy = run_workloads(bench, only, repetitions)
        measured = peers.measure_all(bench, repetitions) if with_peers else {}
    finally:
        shutil.rmtree(own_folder, ignore_errors=True)
    taken_with = environment, {**settings, report.BUSY: busy}
    click.echo(report.as_text(results, *taken_with))
    if with_peers:
        ours = {one.figure.id: one.value for one in results if not one.void}
        click.echo(peers.table(ours, measured))
    if json_file is not None:
        written = report.as_json(results, *taken_with)
        json_file.write(orjson.dumps(written, option=orjson.OPT_INDENT_2) + b"\n")
    if svg_file is not None:
        svg_file.write(as_svg(results, *taken_with).encode())
    sys.exit(1 if any(result.void for result in results) else 0)


if __name__ == "__main__":
    main(prog_name="bench")
