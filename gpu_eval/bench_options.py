"""The two benches as a command line asks for them: from words to a run, its table and its folder of results."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpu_eval.environment import environment
from gpu_eval.report import check_folder, write_results
from gpu_eval.results import Bench, Device, Results
from gpu_eval.shapes import SHAPES, Shape
from gpu_eval.tables import text_table
from gpu_eval.workloads import REGIMES

QUICK_REGIMES = ("adrs", "trt")
_SHAPE = re.compile(r"(\d+)x(\d+)-(\d+)/(\d+)/(\d+)/(\d+)")


def run_bench(
    bench: Bench,
    *,
    device: str | None,
    candidates: Sequence[Path],
    regimes: Sequence[str],
    shapes: Sequence[str],
    loads: Path | None,
    entries_per_window: int | None,
    quick: bool,
    seed: int,
    out: Path | None,
    launcher: tuple[str, ...] = (),
    told: Callable[[str], None],
    show: Callable[[str], None],
) -> Results:
    """Run one bench, `show` the tables, and write its folder. `told` hears what happens meanwhile.

    Raises ValueError, one line, for what cannot be measured, and for a folder that cannot be written before anything
    is measured; then nothing is written.
    """
    if loads is not None and regimes:
        raise ValueError("--loads and --regime exclude each other: recorded loads are of no regime")
    if entries_per_window is not None and loads is None:
        raise ValueError("--entries-per-window is of recorded loads: give --loads, too")
    if seed < 0:
        raise ValueError(f"--seed {seed}: expected at least 0")
    entries = ("rebalance_experts",) if bench == "eplb" else ("init", "step")
    chosen, on = programs_of(candidates, entries), device_of(device)
    folder = out or default_folder(bench, environment(on))
    check_folder(folder)
    common: dict[str, Any] = {
        "device": on,
        "regimes": regimes_of(regimes, quick),
        "shapes": shapes_of(shapes, quick),
        "programs": chosen,
        "loads": loads,
        "entries_per_window": entries_per_window,
        "seed": seed,
        "launcher": launcher,
    }
    results = _run_eplb(common, quick, told) if bench == "eplb" else _run_moe(common, quick, bool(shapes), told)
    show(text_table(results))
    for path in write_results(results, folder):
        told(f"wrote {path}")
    return results


def _run_eplb(common: dict[str, Any], quick: bool, told: Callable[[str], None]) -> Results:
    from gpu_eval.bench_eplb import EplbOptions, run

    options = EplbOptions(**common)
    return run(replace(options, traces=2, limit_s=1.0) if quick else options, told)


def _run_moe(common: dict[str, Any], quick: bool, shapes_named: bool, told: Callable[[str], None]) -> Results:
    from gpu_eval.bench_moe import QUICK_ROWS, MoeOptions, run

    if not shapes_named and common["loads"] is None:
        common = {**common, "shapes": SHAPES[:1]}
    options = MoeOptions(**common)
    return run(replace(options, windows=8, window_steps=50, gpu_rows=QUICK_ROWS) if quick else options, told)


def device_of(name: str | None) -> Device:
    """`cpu` or `cuda`; None: cuda where torch sees a GPU. Raises ValueError for another name, or without a GPU."""
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise ValueError(f"--device {name}: accepted are cpu and cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device cuda: torch {torch.__version__} sees no GPU here")
    return "cuda" if name == "cuda" else "cpu"


def regimes_of(names: Sequence[str], quick: bool) -> tuple[str, ...]:
    """The named regimes, all without names. Raises ValueError that lists what there is."""
    for name in names:
        if name not in REGIMES:
            raise ValueError(f"--regime {name}: accepted are {', '.join(REGIMES)}")
    return tuple(dict.fromkeys(names)) or (QUICK_REGIMES if quick else tuple(REGIMES))


def shapes_of(names: Sequence[str], quick: bool) -> tuple[Shape, ...]:
    """The named shapes, as `Shape.name` writes them; those of `SHAPES` without names. Raises ValueError, one line."""
    if not names:
        return SHAPES[:1] if quick else SHAPES
    found = []
    for name in names:
        match = _SHAPE.fullmatch(name)
        if match is None:
            raise ValueError(
                f"--shape {name}: expected LAYERSxEXPERTS-SLOTS/GPUS/NODES/GROUPS, such as {SHAPES[0].name}"
            )
        try:
            found.append(Shape(*map(int, match.groups())))
        except ValueError as error:
            raise ValueError(f"--shape {name}: {error}") from None
    return tuple(dict.fromkeys(found))


def programs_of(paths: Iterable[Path], entries: Sequence[str]) -> tuple[Path, ...]:
    """Program files, each of which must be readable, named otherwise than the others, and define `entries`.

    Raises ValueError, one line.
    """
    found: dict[str, Path] = {}
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read program {path}: {error}") from None
        for entry in entries:
            if not re.search(rf"^(?:def\s+{entry}\b|{entry}\s*=|class\s+{entry}\b|from\s.*\b{entry}\b)", text, re.M):
                raise ValueError(f"{path} defines no {entry}: the bench calls {' and '.join(entries)}")
        if path.stem in found:
            raise ValueError(f"{path} and {found[path.stem]} have one name: rename one of them")
        found[path.stem] = path
    return tuple(found.values())


def default_folder(bench: Bench, environment: dict[str, Any]) -> Path:
    """`results/<GPU or cpu>-<date>/<bench>`, in the folder where one is."""
    gpus = environment.get("gpus") or []
    name = gpus[0]["name"] if gpus else "cpu"
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "gpu"
    return Path("results") / f"{plain}-{datetime.now(UTC).strftime('%Y-%m-%d')}" / bench
