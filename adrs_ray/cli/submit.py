"""`adrs submit`: a run as a job of a cluster that is elsewhere."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer


def register(root: typer.Typer) -> None:
    root.command()(submit)


def _image_hint(value: bool) -> None:
    if value:
        from cluster.job_server import image, versions_here

        typer.echo(image(versions_here()))
        raise typer.Exit


def submit(
    task: Annotated[str, typer.Argument(help="Built-in task (see `adrs tasks`) or a task folder.")],
    address: Annotated[str, typer.Option(help="Dashboard of the cluster's head, such as http://head:8265.")],
    config: Annotated[Path | None, typer.Option(help="Config file (see `adrs config show`).")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run (default: from task and config file).")] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Folder of runs: an absolute path on the cluster, or a URL (default: as `adrs job`)."),
    ] = None,
    working_dir: Annotated[
        Path, typer.Option("--working-dir", help="Folder that is sent, without .venv, runs, data, .git, caches.")
    ] = Path(),
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Leave these files out, too; repeatable.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting in place of the config's, KEY=VALUE; repeatable.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A variable of the job, no secret; repeatable.")
    ] = None,
    forward_keys: Annotated[
        bool, typer.Option("--forward-keys", help="Send the keys that api_key_env names; the job list shows them.")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return once the job is submitted.")] = False,
    _hint: Annotated[
        bool,
        typer.Option(
            "--image-hint",
            help="Print the Ray image that fits this side's versions, and exit.",
            callback=_image_hint,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Check a run here, send it to a cluster as a job, and show its output until it ends.

    Ctrl-C leaves the job running. The same command again continues the run of that name. The exit code is the job's.
    """
    from cluster.job_server import JobServer
    from cluster.submit import Order, check_versions, instructions, outcome, prepare, send, size_line

    order = Order(
        task=task,
        config=config,
        working_dir=working_dir.expanduser().resolve(),
        name=name,
        out=out,
        settings=tuple(settings or ()),
        left_out=tuple(exclude or ()),
        env=tuple(env or ()),
        forward_keys=forward_keys,
    )
    submission = prepare(order, os.environ)
    server = JobServer(address)
    check_versions(server)
    for line in (size_line(submission), *submission.notes):
        typer.echo(line)
    job_id = f"{submission.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    send(server, submission, job_id)
    for line in instructions(submission.name, job_id, server.address):
        typer.echo(line)
    if no_wait:
        return
    try:
        code, words = outcome(server.follow(job_id, _write))
    except KeyboardInterrupt:
        print(f"\nthe job goes on: ray job logs --follow {job_id} --address {server.address}", file=sys.stderr)
        raise typer.Exit(130) from None
    print(f"adrs: {words}", file=sys.stderr)
    if code:
        raise typer.Exit(code)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
