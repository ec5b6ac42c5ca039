"""Every hostile program, under every variant of the jail, each followed by an honest one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from adrs_ray.candidate import Evaluation, Failure
from adrs_ray.evaluator import processes
from tests.evaluator.tiny_task import SEED
from tests.security.corpus import CORPUS, HEAP_SEARCH, Hostile
from tests.security.ground import Ground, open_ground, unavailable
from tests.security.variants import VARIANTS


@pytest.fixture(scope="module", params=VARIANTS)
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    reason = unavailable(request.param)
    if reason is not None:
        pytest.skip(reason)
    with open_ground(request.param) as opened:
        yield opened


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
