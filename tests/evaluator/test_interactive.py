"""A game of thousands of small arrays: what goes wrong midway ends it as it would anywhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.evaluator.doctor import evaluate_once
from adrs_ray.task import load_task

ROUNDS = 400

JUDGE = f"""\
import numpy as np

from adrs_ray.task import Case, Combined, InvalidOutput


def cases(split):
    return [Case("game", 7, None)]


def referee(case):
    total = 0.0
    for number in range({ROUNDS}):
        action = yield np.full((3, 2), float(number))
        if not isinstance(action, np.ndarray) or action.shape != (3,):
            raise InvalidOutput(f"round {{number}}: {{action!r:.60}}")
        total += float(action.sum())
    return total


def score(case, raw):
    return {{"total": raw}}


def combine(results):
    return Combined(results[0].metrics["total"], results[0].metrics)
"""
SPEC = "name: game\nsummary: rounds\nentry: [play]\nlimits: {case_timeout_s: 4, output_mb: 1, processes: 0}\n"
ADAPTER = "import numpy\n\n\ndef act(program, observation):\n    return program.play(observation)\n"
HONEST = "def play(x):\n    return x.sum(axis=1)\n"
TOTAL = 6.0 * sum(range(ROUNDS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("game")
    for name, text in {"task.yaml": SPEC, "judge.py": JUDGE, "adapter.py": ADAPTER, "seed.py": HONEST}.items():
        (folder / name).write_text(text)
    return folder


def verdict_on(folder: Path, source: str) -> Verdict:
    return evaluate_once(load_task(folder), source, "train", EvaluatorConfig(slots=1))


@pytest.mark.parametrize(
    "source",
    [
        HONEST,
        "import sys\n\n\ndef play(x):\n    print('x' * 20_000)\n    sys.stderr.write('y' * 300)\n"
        "    return x.sum(axis=1)\n",
        "def play(x):\n    x[...] = x.copy()\n    return x[:, 0] * 2\n",
    ],
    ids=["plain", "printing more than a pipe holds", "writing to the observation"],
)
def test_every_round_counts(folder: Path, source: str) -> None:
    verdict = verdict_on(folder, source)
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.score == TOTAL


def test_actions_of_any_kind_reach_the_referee(folder: Path) -> None:
    source = "def play(x):\n    return [1, 2] if x[0, 0] == 9 else x.sum(axis=1)\n"
    verdict = verdict_on(folder, source)
    assert isinstance(verdict, Failure)
    assert (verdict.kind, verdict.detail) == (FailureKind.INVALID, "round 9: [1, 2]")


@pytest.mark.parametrize(
    ("midway", "kind", "says"),
    [
        ("raise KeyError('lost')", FailureKind.CRASH, "lost"),
        ("os._exit(3)", FailureKind.CRASH, "exited with code 3"),
        ("time.sleep(60)", FailureKind.TIMEOUT, "no result within"),
        ("socket.socketpair()[0].fileno(); os.write(3, b'z' * 64)", FailureKind.REWARD_HACKING, "forged"),
        ("return np.zeros(1 << 18)", FailureKind.OUTPUT, "bytes"),
        ("ctypes.CDLL(None).ptrace(0, 0, 0, 0)", FailureKind.VIOLATION, "ptrace"),
    ],
)
def test_what_goes_wrong_midway_ends_the_game(folder: Path, midway: str, kind: FailureKind, says: str) -> None:
    source = (
        "import ctypes, os, socket, time\nimport numpy as np\n\n\n"
        f"def play(x):\n    if x[0, 0] == 50:\n        {midway}\n    return x.sum(axis=1)\n"
    )
    verdict = verdict_on(folder, source)
    assert isinstance(verdict, Failure)
    assert verdict.kind is kind, verdict
    assert says in verdict.detail


def test_a_denied_call_midway_is_told(folder: Path) -> None:
    source = (
        "def play(x):\n    if x[0, 0] == 50:\n        try:\n            open('/etc/passwd')\n"
        "        except OSError:\n            pass\n    return x.sum(axis=1)\n"
    )
    verdict = verdict_on(folder, source)
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.score == TOTAL
    assert verdict.evidence.denied == {"open:/etc/passwd": 1}


def test_the_arrays_that_travel_alone_do_not_depend_on_numpys_layout() -> None:
    from adrs_ray.evaluator.codec import decode_array, encode_array

    array = np.arange(12.0).reshape(3, 4)
    for given in (array, array.T, array[::2, ::-1], np.asfortranarray(array)):
        sent = encode_array(given)
        assert sent is not None
        np.testing.assert_array_equal(decode_array(sent), given)
