"""A store as an fsspec file system that does what stores do on bad days, and what the mirror tests share."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from fsspec import AbstractFileSystem

from adrs_ray.cluster_config import MirrorConfig
from adrs_ray.config import RunConfig
from adrs_ray.storage.journal import Event, EventKind, Journal, text_ref
from adrs_ray.storage.mirror import open_mirrored
from adrs_ray.storage.reader import JournalReader
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.storage.sqlite import SqliteJournal


@dataclass
class Store:
    """What one store holds, and how it misbehaves."""

    files: dict[str, bytes] = field(default_factory=dict)
    down: bool = False
    says: str = "the store is away"
    lost_replies: int = 0
    """So many writes arrive, and the writer is told that they failed."""
    halves: int = 0
    """So many writes arrive by half."""
    conditional: bool = True
    """Whether a write with mode=create is refused when the file is there."""
    knows_mode: bool = True
    """Whether its library has heard of mode=create."""
    unlisted: int = 0
    """So many of the newest files are not listed yet."""
    before_write: Callable[[str], None] | None = None
    """Called once, before the next write."""
    reads: int = 0
    writes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, path: str, data: bytes, create: bool) -> None:
        hook, self.before_write = self.before_write, None
        if hook is not None:
            hook(path)
        self.check()
        with self.lock:
            self.writes += 1
            if create and self.conditional and path in self.files:
                raise FileExistsError(path)
            if self.halves > 0:
                self.halves -= 1
                self.files[path] = data[: len(data) // 2]
                raise OSError("the connection broke")
            self.files[path] = data
            if self.lost_replies > 0:
                self.lost_replies -= 1
                raise OSError("the connection broke")

    def check(self) -> None:
        if self.down:
            raise OSError(self.says)


STORES: defaultdict[str, Store] = defaultdict(Store)


class MoodyFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """`moody://NAME/folder` lies in `STORES[NAME]`."""

    protocol = "moody"
    cachable = False

    def _store(self, path: str) -> Store:
        return STORES[self._strip_protocol(path).split("/")[0]]

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path, store = self._strip_protocol(path), self._store(path)
        store.check()
        names = [name for name in store.files if name.startswith(f"{path}/")]
        names = names[: len(names) - store.unlisted]
        below = sorted({f"{path}/{name[len(path) + 1 :].split('/')[0]}" for name in names})
        if not below:
            raise FileNotFoundError(path)
        return [{"name": name, "type": "file", "size": 0} for name in below] if detail else below

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        path, store = self._strip_protocol(path), self._store(path)
        store.check()
        store.reads += 1
        if path not in store.files:
            raise FileNotFoundError(path)
        return store.files[path]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        store = self._store(path)
        if mode != "overwrite" and not store.knows_mode:
            raise TypeError("pipe_file() got an unexpected keyword argument 'mode'")
        store.write(self._strip_protocol(path), value, create=mode == "create")

    def rm_file(self, path: str) -> None:
        store = self._store(path)
        store.check()
        del store.files[self._strip_protocol(path)]

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._store(path).check()


fsspec.register_implementation("moody", MoodyFileSystem, clobber=True)


def numbered(number: int | str, *texts: str) -> Event:
    """An event that refers to its texts."""
    body = {"n": number, "texts": [text_ref(text) for text in texts]}
    return Event(f"event{number}", EventKind.LOST, None, 0, body, texts)


def make_run(path: Path) -> RunFolder:
    """A run folder without a journal."""
    return RunFolder.create(path, RunConfig(), "txn", local=True)


def opened(folder: RunFolder, url: str, fence: bool = False, **config: Any) -> Journal:
    """The run's journal with a mirror, uploading early."""
    journal = SqliteJournal.open(folder.journal, fence=fence)
    settings = MirrorConfig(**{"url": url, "lag_s": 0.05, **config})
    try:
        return asyncio.run(open_mirrored(journal, settings, folder.run_yaml, wait_s=0.0, close_wait_s=10.0))
    except BaseException:
        asyncio.run(journal.close())
        raise


def append(journal: Journal, events: Sequence[Event]) -> list[Event]:
    return asyncio.run(journal.append(events, journal.epoch))


def close(journal: Journal) -> None:
    asyncio.run(journal.close())


def write(folder: RunFolder, url: str, events: Sequence[Event], **config: Any) -> None:
    """Append events, each in a batch of its own, in a writer that is closed again."""
    journal = opened(folder, url, **config)
    for event in events:
        append(journal, [event])
    close(journal)


def content(folder: Path) -> tuple[list[Event], dict[str, str]]:
    """Events and texts of a run's journal."""
    with JournalReader(folder / "journal.db") as reader:
        events = reader.read()
        refs = sorted({ref for event in events for ref in event.body.get("texts", [])})
        return events, reader.texts(refs)
