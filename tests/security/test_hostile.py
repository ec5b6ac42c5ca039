"""Every hostile program, under both variants of the jail, each followed by an honest one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from adrs_ray.candidate import Evaluation, Failure
from adrs_ray.evaluator import processes
from tests.evaluator.tiny_task import CANARY, SEED, write_task
from tests.security.corpus import CORPUS, HEAP_SEARCH, Hostile
from tests.security.variants import VARIANTS, Slot, listening_interpreter, one_slot, readable_interpreter


@dataclass
class Ground:
    """A jail under attack, and what lies outside of it."""

    slot: Slot
    task: Path
    outside: Path
    has_listener: bool

    def fill(self, source: str, canary: str = CANARY) -> str:
        half = len(canary) // 2
        places = {
            "@SECRET@": str(self.outside / "secret"),
            "@OUTSIDE@": str(self.outside),
            "@TASK@": str(self.task),
            "@WORKER@": str(os.getpid()),
            "@CANARY1@": canary[:half].encode().hex(),
            "@CANARY2@": canary[half:].encode().hex(),
        }
        for place, value in places.items():
            source = source.replace(place, value)
        return source

    def look_outside(self) -> list[tuple[str, int, int, float, bytes]]:
        """Name, mode, owner, time of change and content of every file outside."""
        found = []
        for path in sorted(self.outside.iterdir()):
            stat = path.stat()
            found.append((path.name, stat.st_mode, stat.st_uid, stat.st_mtime, path.read_bytes()))
        return found


@pytest.fixture(scope="module", params=VARIANTS)
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    if request.param == "dropped user" and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    if request.param == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    root = Path(tempfile.mkdtemp(prefix="adrs-hostile-")).resolve()
    root.chmod(0o755)
    outside = root / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    (outside / "secret").write_text("s3cr3t")
    (outside / "secret").chmod(0o666)
    task = write_task(root / "task", timeout_s=3.0)
    python = None
    if request.param == "dropped user":
        python = readable_interpreter(root / "python")
    elif request.param == "no listener":
        python = listening_interpreter(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADRS_TEST_SECRET", "s3cr3t")
        with one_slot(task, request.param, python) as slot:
            yield Ground(slot, root / "task", outside, has_listener=request.param != "no listener")
    shutil.rmtree(root)


@pytest.mark.parametrize("hostile", CORPUS, ids=[hostile.name for hostile in CORPUS])
def test_a_hostile_program_gets_its_verdict_and_leaves_nothing(ground: Ground, hostile: Hostile) -> None:
    if hostile.needs_listener and not ground.has_listener:
        pytest.skip("needs seccomp's listener")
    before = ground.look_outside()
    servers = processes.descendants(os.getpid())

    verdict = ground.slot.judge(ground.fill(hostile.source))

    if hostile.expected is None:
        assert isinstance(verdict, Evaluation), verdict
        assert verdict.score == 0.0
    else:
        assert isinstance(verdict, Failure)
        assert verdict.kind == hostile.expected, verdict
        assert hostile.says in verdict.detail
        assert "\n" not in verdict.detail
    # without the listener only the candidate's own account of opens is left
    for key in hostile.denied if ground.has_listener else [k for k in hostile.denied if k.startswith("open:")]:
        assert verdict.evidence.denied.get(ground.fill(key), 0) > 0, verdict.evidence
    assert verdict.trust == "verified"
    assert processes.descendants(os.getpid()) == servers, "the same fork server, and no process besides"
    assert ground.look_outside() == before
    honest = ground.slot.judge(SEED)
    assert isinstance(honest, Evaluation)
    assert honest.score == 0.0
    assert honest.evidence.denied == {}


def test_the_layers_are_told(ground: Ground) -> None:
    layers = ground.slot.judge(SEED).evidence.jail
    if ground.slot.confinement.bubblewrap:
        assert layers == ("bubblewrap", "no-new-privileges", "no-capabilities", "rlimits", "seccomp-listener")
        return
    user = "no-capabilities" if ground.slot.confinement.uid is None else "user-65534"
    assert layers == (
        "no-new-privileges",
        f"landlock-{ground.slot.confinement.landlock_abi}",
        user,
        "rlimits",
        layers[-1],
    )
    assert layers[-1] == ("seccomp-listener" if ground.has_listener else "seccomp")


def test_the_memory_search_finds_what_is_there(ground: Ground) -> None:
    """Without this, the corpus's search for hidden data could be blind."""
    source = ground.fill(HEAP_SEARCH, canary="4f1d-planted-canary") + "\nPLANTED = '4f1d-planted' + '-canary'.lower()\n"
    verdict = ground.slot.judge(source)
    assert isinstance(verdict, Evaluation)
    assert verdict.score < -1e6


def test_nothing_printed_or_written_reaches_the_next_candidate(ground: Ground) -> None:
    token = "passed-on-from-me"
    talker = """
import os
def solve(x):
    text = '-'.join(['passed', 'on', 'from', 'me']) * 50
    print(text)
    open('note-' + text[:17], 'w').write(text)
    os.mkdir(text[:17])
    return float(x.sum())
"""
    assert isinstance(ground.slot.judge(talker), Evaluation)
    listener = ground.fill(HEAP_SEARCH, canary=token)
    verdict = ground.slot.judge(listener)
    assert isinstance(verdict, Evaluation)
    assert verdict.score == 0.0
    looker = "import os\ndef solve(x):\n    return float(x.sum()) + len(os.listdir('.'))\n"
    verdict = ground.slot.judge(looker)
    assert isinstance(verdict, Evaluation)
    assert verdict.score == 0.0
