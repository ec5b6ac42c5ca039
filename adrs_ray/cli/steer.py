"""`adrs steer`: what people ask of a run while it goes on."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adrs_ray.cli.remote import reachable

if TYPE_CHECKING:
    from adrs_ray.storage.runfolder import RunFolder

TAKEN_IN_WITHIN_S = 15.0
"""How long we wait to see a running run take a command in."""


def register(root: typer.Typer) -> None:
    root.command()(steer)


@reachable("steer", files=("inject",))
def steer(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    hint: Annotated[str | None, typer.Option(help="Words that prompts tell models, from now on.")] = None,
    island: Annotated[int | None, typer.Option(min=0, help="With --hint: this island alone.")] = None,
    pin: Annotated[str | None, typer.Option(metavar="ID", help="Draw this candidate as a parent often.")] = None,
    ban: Annotated[
        str | None, typer.Option(metavar="ID", help="Take this candidate out: no parent, no champion.")
    ] = None,
    inject: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Measure this program, give it to all; - reads standard input.")
    ] = None,
    budget: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Another limit, such as max_usd=20; repeatable.")
    ] = None,
    pause: Annotated[
        str | None, typer.Option(metavar="I|all", help="Begin nothing new on an island, or on all.")
    ] = None,
    go_on: Annotated[str | None, typer.Option("--continue", metavar="I|all", help="Go on after a pause.")] = None,
    restart: Annotated[
        int | None, typer.Option(metavar="I", help="Cut an island's archive down to its best and the most different.")
    ] = None,
    spawn: Annotated[bool, typer.Option("--spawn", help="Start one more island.")] = False,
    retire: Annotated[int | None, typer.Option(metavar="I", help="Let an island end.")] = None,
) -> None:
    """Change a run while it goes on. Every command is journaled, obeyed within seconds, and holds after a resume."""
    from adrs_ray.commands import checked
    from adrs_ray.errors import UsageError
    from adrs_ray.storage.runfolder import RunFolder, post_command

    folder = RunFolder.open(run)
    wanted: list[tuple[str, dict[str, Any]]] = []
    if hint is not None:
        wanted.append(("hint", {"text": hint, "island": island}))
    elif island is not None:
        raise UsageError("--island goes with --hint; the other options name their island themselves")
    wanted += [(kind, {"candidate": name}) for kind, name in (("pin", pin), ("ban", ban)) if name is not None]
    if inject is not None:
        wanted.append(("inject", {"source": _program(inject)}))
    if budget:
        wanted.append(("budget", {"values": dict(_limit(pair) for pair in budget)}))
    wanted += [
        (kind, {"island": _island(kind, which)}) for kind, which in (("pause", pause), ("continue", go_on)) if which
    ]
    wanted += [
        (kind, {"island": number}) for kind, number in (("restart", restart), ("retire", retire)) if number is not None
    ]
    if spawn:
        wanted.append(("spawn", {}))
    if not wanted:
        raise UsageError("nothing to do: give --hint, --pin, --ban, --inject, --budget, --pause, --continue, ...")
    bodies = [(kind, checked(kind, body)) for kind, body in wanted]
    _check_names(folder, bodies)
    ids = {post_command(folder, kind, body): kind for kind, body in bodies}
    _report(folder, ids)


def _program(path: Path) -> str:
    from adrs_ray.task import read_program

    return sys.stdin.read() if str(path) == "-" else read_program(path)


def _limit(pair: str) -> tuple[str, int | float | None]:
    from adrs_ray.errors import UsageError

    key, sign, text = pair.partition("=")
    if not sign:
        raise UsageError(f"--budget {pair}: expected KEY=VALUE, such as max_candidates=500 or max_usd=none")
    if text in ("none", "null"):
        return key, None
    try:
        return key, int(text)
    except ValueError:
        pass
    try:
        return key, float(text)
    except ValueError:
        raise UsageError(f"--budget {pair}: {text!r} is no number (none takes a limit away)") from None


def _island(kind: str, which: str) -> int | None:
    from adrs_ray.errors import UsageError

    if which == "all":
        return None
    if not which.isdigit():
        raise UsageError(f"--{kind} {which}: expected an island's number, or all")
    return int(which)


def _check_names(folder: RunFolder, bodies: list[tuple[str, dict[str, Any]]]) -> None:
    """Candidates and islands must be there; what is wrong is said before anything is posted."""
    from adrs_ray.commands import rebudgeted
    from adrs_ray.errors import UsageError
    from adrs_ray.storage.journal import EventKind, settled_id
    from adrs_ray.storage.reader import JournalReader

    for kind, body in bodies:
        if kind == "budget":
            rebudgeted(folder.config, body["values"])
        with JournalReader(folder.journal) as reader:
            if kind in ("pin", "ban"):
                name = settled_id(body["candidate"])
                found = reader.find([name])
                if not found or found[name].kind is not EventKind.ADMITTED:
                    raise UsageError(f"{folder.path} has no valid candidate {body['candidate']!r}: see `adrs best`")
            orders = [event.body for event in reader.read(kinds=[EventKind.COMMAND])]
        spawned = {order["body"]["island"] for order in orders if order["kind"] == "spawn"}
        islands = set(range(folder.config.islands.count)) | spawned
        number = body.get("island")
        if number is not None and number not in islands:
            raise UsageError(f"{folder.path} has no island {number}: it has {', '.join(map(str, sorted(islands)))}")


def _report(folder: RunFolder, ids: dict[str, str]) -> None:
    """Wait until a running run has taken the commands in, and say so."""
    from adrs_ray.errors import RunError
    from adrs_ray.storage.reader import JournalReader

    if not folder.is_running():
        typer.echo(f"{folder.path} is not running: {', '.join(ids.values())} will be obeyed when it is resumed")
        return
    deadline = time.monotonic() + TAKEN_IN_WITHIN_S
    with JournalReader(folder.journal) as reader:
        while True:
            found = reader.find([f"command:{name}" for name in ids])
            if len(found) == len(ids):
                break
            if time.monotonic() > deadline:
                typer.echo(f"posted: {', '.join(ids.values())}; the run has not taken them in yet")
                return
            time.sleep(0.1)
    for event in found.values():
        if event.body["kind"] == "refused":
            raise RunError(f"the run refused {event.body['body']['kind']}: {event.body['body']['why']}")
    typer.echo(f"taken in: {', '.join(ids.values())}")
