"""`adrs inbox ...`: people and coding agents as the generator of a run (`generator.kind: mailbox`)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from adrs_ray.cli.remote import reachable

if TYPE_CHECKING:
    from adrs_ray.supervision.inbox import Inbox


class _ListByDefault(TyperGroup):
    """`adrs inbox RUN` is `adrs inbox list RUN`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = bool(args) and (args[0] in self.commands or args[0].startswith("-"))
        return super().parse_args(ctx, args if known or not args else ["list", *args])


app = typer.Typer(
    help="Open requests of a run whose generator is a mailbox: `adrs inbox RUN` lists them.",
    no_args_is_help=True,
    cls=_ListByDefault,
)

Run = Annotated[Path, typer.Argument(help="Run folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="inbox")


@contextmanager
def _opened(run: Path) -> Iterator[Inbox]:
    from adrs_ray.errors import UsageError
    from adrs_ray.storage.reader import JournalReader
    from adrs_ray.storage.runfolder import RunFolder
    from adrs_ray.supervision.inbox import Inbox

    folder = RunFolder.open(run)
    if folder.config.generator.kind != "mailbox":
        raise UsageError(f"{run} has no mailbox: its generator.kind is {folder.config.generator.kind}")
    with JournalReader(folder.journal) as reader:
        yield Inbox(folder, reader)


@app.command("list")
@reachable("inbox list")
def list_open(run: Run, as_json: Json = False) -> None:
    """The open requests, oldest first."""
    with _opened(run) as inbox:
        requests = inbox.open()
    now = time.time()
    if as_json:
        rows = [
            {
                "id": r.id,
                "operator": r.operator,
                "candidate": r.candidate,
                "open_s": round(now - r.requested_at, 1),
                "leased_for_s": None if r.leased_until is None else round(r.leased_until - now, 1),
            }
            for r in requests
        ]
        typer.echo(json.dumps(rows))
        return
    for request in requests:
        lease = "free" if request.leased_until is None else f"claimed, free again in {request.leased_until - now:.0f} s"
        typer.echo(f"{request.id}  {request.operator}  open for {now - request.requested_at:.0f} s  {lease}")
    if not requests:
        typer.echo("no open request")


@app.command("next")
@reachable("inbox next")
def claim_next(
    run: Run,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for a free request.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Claim the oldest free request and print its prompt; exit code 1 when there is none.

    The claim lasts generator.lease_s seconds; then the request is offered again.
    """
    from adrs_ray.errors import RunError

    with _opened(run) as inbox:
        request = inbox.claim(wait)
        if request is None:
            raise RunError(f"{run} has no free request" + (f" in {wait:g} s" if wait else "; wait with --wait S"))
        messages = inbox.messages(request.id)
    if as_json:
        prompt = [{"role": message.role, "content": message.content} for message in messages]
        typer.echo(json.dumps({"id": request.id, "operator": request.operator, "messages": prompt}))
        return
    typer.echo(f"request {request.id}; answer with: adrs inbox answer {run} {request.id} --file ANSWER")
    for message in messages:
        typer.echo(f"\n----- {message.role} -----\n{message.content}")


@app.command()
@reachable("inbox answer", files=("file",))
def answer(
    run: Run,
    request: Annotated[str, typer.Argument(help="Id of the request, such as 0-12/0.")],
    file: Annotated[Path, typer.Option("--file", help="The completion; - reads standard input.")],
) -> None:
    """Give the completion of an open request. It counts though the run is stopped: when it goes on."""
    from adrs_ray.commands import checked
    from adrs_ray.errors import UsageError

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the answer {file}: {error}") from None
    checked("answer", {"request": request, "text": text})
    with _opened(run) as inbox:
        inbox.answer(request, text)
    typer.echo(f"answered {request}")
