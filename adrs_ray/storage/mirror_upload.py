"""The thread that keeps a mirror up with a journal.

It reads what is missing from the journal's file, one batch of bounded size at a time: however long the store is away,
memory does not grow. A batch that failed is tried again as it was, since its first attempt may have arrived.

Fencing. Every batch is created under the next number, and a number that is taken is looked at: what is ours or holds
our own events (a reply that was lost, a predecessor's last upload) is adopted, anything else means that another head
has taken the run over. Where the store itself refuses to create what is there, two heads can never both go on. Where it
does not, we look before and after; if another head's upload falls between our last look and the next batch, what we
wrote is replaced, and what was acknowledged in that batch is not in the mirror. The chain of digests then shows it, and
no mixture of two heads is ever restored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import uuid
from dataclasses import dataclass

from adrs_ray.errors import UsageError
from adrs_ray.storage.excerpt import Excerpt, ExcerptReader
from adrs_ray.storage.journal import JournalRefusedError, StaleEpochError
from adrs_ray.storage.mirror_batch import (
    DamagedBatchError,
    Header,
    RunIdentity,
    batch_name,
    digest_of,
    header_line,
    parse_file,
    whole_file,
)
from adrs_ray.storage.mirror_chain import Tip, taken_over
from adrs_ray.storage.mirror_files import MirrorFiles, StoreError, one_line

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 15.0
"""Between attempts; doubled from the first to the longest."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MirrorLag:
    """How far a mirror is behind."""

    seconds: float
    """Age of the oldest acknowledged event that the mirror lacks; 0 when it has them all."""
    events: int
    """Acknowledged events that it lacks."""
    error: str | None
    """Why the last attempt failed, one line; None when it did not."""


@dataclass(frozen=True, slots=True)
class _Upload:
    """A batch that is ready to be written."""

    header: Header
    digest: str
    data: bytes
    is_all: bool
    read_at: float


@dataclass(frozen=True, slots=True)
class _Waiter:
    seq: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[None]

    def answer(self, error: Exception | None) -> None:
        # A loop that is closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, error: Exception | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)


class Uploader:
    """Writes the batches behind a tip. `claim` once, then `start`, then `finish`; the rest from any thread."""

    def __init__(
        self,
        files: MirrorFiles,
        journal: ExcerptReader,
        tip: Tip,
        epoch: int,
        run: RunIdentity | None,
        lag_s: float,
        at_once: bool,
    ) -> None:
        self._files = files
        self._journal = journal
        self._tip = tip
        self._epoch = epoch
        self._run = run
        self._lag_s = lag_s
        self._at_once = at_once
        self._writer = uuid.uuid4().hex
        self._prepared: _Upload | None = None
        self._usual_s = 0.0
        """How long the last upload took."""
        self._thread = threading.Thread(target=self._keep_up, name="journal-mirror", daemon=True)
        self._door = threading.Condition()
        self._acked = journal.last_seq()
        self._mirrored = tip.last_seq
        self._since: float | None = None
        """No acknowledged event that the mirror lacks is older."""
        self._waiters: list[_Waiter] = []
        self._under_way = 0
        self._closing = self._abandoned = False
        self._error: str | None = None
        self._fence: StaleEpochError | None = None

    def claim(self) -> None:
        """Write the first batch, with or without events: from then on other heads are fenced. Finds out whether the
        store refuses to create what is there. Raises StoreError, StaleEpochError."""
        while not self._upload_one(claim=True):
            pass

    def start(self) -> None:
        """Keep up from now on; what the journal had before is uploaded at once."""
        if self._acked > self._mirrored:
            self._since = time.monotonic() - self._lag_s
        self._thread.start()

    def enter(self) -> None:
        """Before an append. Raises StaleEpochError when the mirror was taken over, JournalRefusedError when closed."""
        with self._door:
            if self._fence is not None:
                raise StaleEpochError(str(self._fence))
            if self._closing:
                raise JournalRefusedError(f"the journal with the mirror {self._files.where} is closed")
            self._under_way += 1

    def leave(self, seq: int) -> None:
        """After an append, whose highest event is acknowledged by the journal; 0 for none."""
        with self._door:
            self._under_way -= 1
            if seq > self._acked:
                self._acked = seq
            if self._acked > self._mirrored and self._since is None:
                self._since = time.monotonic()
                self._door.notify_all()
            elif self._closing:
                self._door.notify_all()

    async def reached(self, seq: int) -> None:
        """Return when the mirror has the event `seq`. Raises StaleEpochError, or JournalRefusedError when closed."""
        loop = asyncio.get_running_loop()
        waiter = _Waiter(seq, loop, loop.create_future())
        with self._door:
            if seq <= self._mirrored:
                return
            if self._fence is not None:
                raise StaleEpochError(str(self._fence))
            if self._abandoned:
                raise self._unfinished()
            self._waiters.append(waiter)
        await waiter.future

    async def caught_up(self) -> None:
        """Return when the mirror has what is acknowledged now. Raises as `reached`."""
        with self._door:
            seq = self._acked
        await self.reached(seq)

    def lag(self) -> MirrorLag:
        """How far the mirror is behind now."""
        with self._door:
            missing = max(0, self._acked - self._mirrored)
            age = time.monotonic() - self._since if missing and self._since is not None else 0.0
            return MirrorLag(max(0.0, age), missing, self._error)

    def finish(self, wait_s: float) -> None:
        """Upload the rest, for at most `wait_s` seconds, and end; a warning says what is missing. Safe to call twice.
        Blocks; appends under way end first."""
        with self._door:
            self._closing = True
            self._door.notify_all()
        if self._thread.is_alive():
            self._thread.join(wait_s)
        with self._door:
            again, self._abandoned = self._abandoned, True
            waiters, self._waiters = self._waiters, []
            missing = max(0, self._acked - self._mirrored)
            self._door.notify_all()
        for waiter in waiters:
            waiter.answer(self._unfinished())
        if missing and not again and self._fence is None:
            _log.warning("%s", self._unfinished())
        if not self._thread.is_alive():
            self._journal.close()

    def _unfinished(self) -> JournalRefusedError:
        missing = max(0, self._acked - self._mirrored)
        return JournalRefusedError(
            f"mirror {self._files.where}: it lacks the last {missing} events, which the journal here holds "
            f"({self._error or 'there was no time left'})"
        )

    def _keep_up(self) -> None:
        pause = 0.0
        while self._wait(pause):
            try:
                self._upload_one()
            except StaleEpochError as error:
                self._give_way(error)
                return
            except Exception as error:  # the boundary of this thread: whatever it is, the run goes on
                line = str(error) if isinstance(error, StoreError | JournalRefusedError) else one_line(error)
                self._note_failure(line, known=isinstance(error, StoreError | JournalRefusedError))
                pause = min(max(2 * pause, FIRST_PAUSE_S), LONGEST_PAUSE_S)
            else:
                self._note_success()
                pause = 0.0

    def _wait(self, pause: float) -> bool:
        """Wait until a batch is due, after a pause; False when there is nothing left to do."""
        resume = time.monotonic() + pause
        with self._door:
            while not self._abandoned:
                now = time.monotonic()
                behind = self._since is not None
                if self._closing and not behind and self._under_way == 0:
                    return False
                due = max(self._due() if behind else now + 3600, min(resume, now + 0.5) if self._closing else resume)
                if due <= now:
                    return True
                self._door.wait(due - now)
        return False

    def _due(self) -> float:
        """When the next batch is begun: early enough to be there when `lag_s` has passed."""
        assert self._since is not None
        if self._at_once or self._closing:
            return self._since
        return self._since + self._lag_s - min(self._lag_s / 2, 2 * self._usual_s)

    def _upload_one(self, claim: bool = False) -> bool:
        """Write the next batch, an empty one only as a claim; False when another one had to be adopted first."""
        upload = self._prepared or self._prepare()
        if (
            upload.header.last_seq == self._tip.last_seq
            and upload.header.last_text == self._tip.last_text
            and not claim
        ):
            self._advance(self._tip, upload.read_at, upload.is_all)
            return True
        # Kept until it is known what became of it.
        self._prepared = upload
        begun = time.monotonic()
        there = self._place(upload)
        if there is not None:
            self._adopt(there)
            return False
        self._usual_s = time.monotonic() - begun
        self._advance(Tip(upload.header.batch, upload.header, upload.digest), upload.read_at, upload.is_all)
        return True

    def _prepare(self) -> _Upload:
        read_at = time.monotonic()
        tip = self._tip
        excerpt = self._journal.excerpt(tip.last_seq, tip.last_text, tip.last)
        header = self._header(excerpt)
        line = header_line(header)
        return _Upload(header, digest_of(line), whole_file(line, excerpt.packed), excerpt.is_all, read_at)

    def _header(self, excerpt: Excerpt) -> Header:
        tip = self._tip
        return Header(
            batch=tip.number + 1,
            run=self._run,
            writer=self._writer,
            epoch=self._epoch,
            first_seq=tip.last_seq + 1,
            last_seq=excerpt.last_seq,
            count=excerpt.last_seq - tip.last_seq,
            last_text=excerpt.last_text,
            last=excerpt.last,
            previous=tip.digest,
            sha256=excerpt.sha256,
        )

    def _place(self, upload: _Upload) -> bytes | None:
        """Create the file of a batch; None when it is there, else what is there instead."""
        name = batch_name(upload.header.batch)
        failure: StoreError | None = None
        try:
            self._files.create(name, upload.data)
        except StoreError as error:
            failure = error
        except FileExistsError:
            failure = StoreError(f"{name} is taken, but it cannot be read")
        else:
            if self._files.exclusive:
                return None
        there = self._files.read(name)
        if there is None:
            raise failure or StoreError(f"{name} was written, and it is not there")
        if there == upload.data:
            return None
        if len(there) < len(upload.data) and upload.data.startswith(there):
            # Our own attempt that broke off, where a store writes in place.
            self._files.put(name, upload.data)
            return None
        return there

    def _adopt(self, there: bytes) -> None:
        """Go on behind a batch that stands where ours should. Raises StaleEpochError when it is not of our journal."""
        tip = self._tip
        try:
            batch = parse_file(there)
        except (DamagedBatchError, UsageError):
            raise taken_over(self._files, 0, self._epoch) from None
        header = batch.header
        ours = header.epoch <= self._epoch and tip.fault(batch) is None
        if not ours or self._journal.position(header.last_seq) != header.last:
            raise taken_over(self._files, header.epoch, self._epoch)
        self._prepared = None
        self._advance(tip.followed_by(batch), time.monotonic(), is_all=False)

    def _advance(self, tip: Tip, read_at: float, is_all: bool) -> None:
        self._tip = tip
        self._prepared = None
        with self._door:
            self._mirrored = tip.last_seq
            if self._acked <= self._mirrored and is_all:
                self._since = None
            elif is_all:
                # What it lacks now was acknowledged after it was read.
                self._since = read_at
            ready = [waiter for waiter in self._waiters if waiter.seq <= self._mirrored]
            self._waiters = [waiter for waiter in self._waiters if waiter.seq > self._mirrored]
        for waiter in ready:
            waiter.answer(None)

    def _give_way(self, error: StaleEpochError) -> None:
        with self._door:
            self._fence = error
            self._error = str(error)
            waiters, self._waiters = self._waiters, []
        _log.warning("%s", error)
        for waiter in waiters:
            waiter.answer(StaleEpochError(str(error)))

    def _note_failure(self, line: str, known: bool) -> None:
        with self._door:
            first, new = self._error is None, self._error != line
            self._error = line
        if new and not known:
            _log.exception("mirror %s: an upload failed", self._files.where)
        elif first and known:
            _log.warning("mirror %s is away, it is tried again until it is back: %s", self._files.where, line)

    def _note_success(self) -> None:
        with self._door:
            back, self._error = self._error is not None, None
        if back:
            _log.warning("mirror %s is back", self._files.where)
