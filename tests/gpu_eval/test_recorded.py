"""Recorded loads: every accepted format, and one line of complaint for whatever else a file may hold."""

from __future__ import annotations

import io
import json
import pickle
import re
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_eval import recorded
from gpu_eval.recorded import load_recorded, save_recorded
from gpu_eval.workloads import REGIMES, LoadTrace, generate

STEPS = np.arange(6 * 3 * 4).reshape(6, 3, 4)


def written(path: Path, data: object) -> Path:
    path.write_text(json.dumps(data))
    return path


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def history(steps: np.ndarray) -> dict[str, object]:
    return {"load_history": [{"logical_expert_load": step.tolist(), "step": i} for i, step in enumerate(steps)], "v": 1}


def test_npz_arrays_are_snapshots_or_series(tmp_path: Path) -> None:
    path = npz(tmp_path / "loads.npz", one=STEPS[0], many=STEPS, samples=STEPS.reshape(3, 2, 3, 4).astype(float))
    one, many, samples = load_recorded(path)
    assert [trace.name for trace in (one, many, samples)] == ["one", "many", "samples"]
    assert [trace.kind for trace in (one, many, samples)] == ["snapshot", "series", "series"]
    assert {trace.source for trace in (one, many, samples)} == {"recorded"}
    assert np.array_equal(one.counts, STEPS[:1])
    assert np.array_equal(many.counts, STEPS)
    assert samples.samples.dtype == np.int64
    assert np.array_equal(samples.counts, STEPS.reshape(3, 2, 3, 4).sum(axis=1))


def test_load_history_adds_up_windows_of_a_hundred(tmp_path: Path) -> None:
    steps = np.random.default_rng(0).integers(0, 50, (250, 2, 3))
    (trace,) = load_recorded(written(tmp_path / "expert-load.json", history(steps)))
    assert (trace.name, trace.kind, trace.samples.shape) == ("expert-load", "series", (2, 100, 2, 3))
    assert np.array_equal(trace.counts, [steps[:100].sum(axis=0), steps[100:200].sum(axis=0)])
    (fine,) = load_recorded(tmp_path / "expert-load.json", entries_per_window=50)
    assert fine.samples.shape == (5, 50, 2, 3)


def test_lines_are_windows(tmp_path: Path) -> None:
    path = tmp_path / "vllm.jsonl"
    path.write_text("".join(json.dumps({"logical_expert_load": step.tolist(), "time": 1.5}) + "\n" for step in STEPS))
    (trace,) = load_recorded(path)
    assert np.array_equal(trace.counts, STEPS)
    (pairs,) = load_recorded(path, entries_per_window=2)
    assert np.array_equal(pairs.samples, STEPS.reshape(3, 2, 3, 4))


def test_sglang_json_is_one_window_of_its_steps(tmp_path: Path) -> None:
    (steps,) = load_recorded(written(tmp_path / "dump.json", {"rank": 0, "logical_count": STEPS.tolist()}))
    assert (steps.kind, steps.samples.shape) == ("snapshot", (1, 6, 3, 4))
    (series,) = load_recorded(tmp_path / "dump.json", entries_per_window=4)
    assert np.array_equal(series.samples, STEPS[None, :4])
    (total,) = load_recorded(written(tmp_path / "total.json", {"logical_count": STEPS[1].tolist()}))
    assert np.array_equal(total.samples, STEPS[None, None, 1])


@pytest.mark.torch
def test_sglang_tensors_and_folders_of_them(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    folder = tmp_path / "hour"
    folder.mkdir()
    for number, steps in enumerate((STEPS[:4], STEPS[4:])):
        dump = {
            "rank": 0,
            "logical_count": torch.tensor(steps, dtype=torch.int32 if number else torch.float32),
            "average_utilization_rate_over_window": None,
        }
        torch.save(dump, folder / f"expert_distribution_recorder_17000000{number}.5.pt")
    (steps,) = load_recorded(folder / "expert_distribution_recorder_170000000.5.pt")
    assert np.array_equal(steps.samples, STEPS[None, :4])
    (hour,) = load_recorded(folder)
    assert (hour.name, hour.kind) == ("hour", "series")
    assert np.array_equal(hour.samples, [[STEPS[:4].sum(axis=0)], [STEPS[4:].sum(axis=0)]])


def test_layers_without_load_are_left_out(tmp_path: Path) -> None:
    loads = STEPS.copy()
    loads[:, 1] = 0
    loads[2, 0] = 0
    (trace,) = load_recorded(npz(tmp_path / "dense.npz", loads=loads))
    assert np.array_equal(trace.counts, loads[:, [0, 2]])


def test_saved_traces_come_back_whole(tmp_path: Path) -> None:
    first = LoadTrace("first", "recorded", STEPS.reshape(3, 2, 3, 4) + 1)
    second = LoadTrace("second", "recorded", STEPS[None, :1] + 1, "snapshot")
    save_recorded(tmp_path / "kept.npz", [first, second])
    back = load_recorded(tmp_path / "kept.npz")
    for saved, loaded in zip((first, second), back, strict=True):
        assert (loaded.name, loaded.source, loaded.kind) == (saved.name, saved.source, saved.kind)
        assert np.array_equal(loaded.samples, saved.samples)


def test_generated_traces_are_not_saved_as_recorded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected recorded traces of different names"):
        save_recorded(tmp_path / "kept.npz", [generate(REGIMES["trt"], 1, 4, 2, 0)])
    same = LoadTrace("same", "recorded", STEPS[None])
    with pytest.raises(ValueError, match="expected recorded traces of different names"):
        save_recorded(tmp_path / "kept.npz", [same, same])
    with pytest.raises(ValueError, match=r"ends in \.npz"):
        save_recorded(tmp_path / "kept.npy", [same])


def refusal(path: Path, entries_per_window: int | None = None) -> str:
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: ") as raised:
        load_recorded(path, entries_per_window)
    message = str(raised.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", [], "has neither logical_count nor load_history at its top"),
        ("a.json", {"load_history": {}}, "expected at least one load_history entry"),
        ("a.json", {"load_history": [{}]}, "load_history entry 1 has no list logical_expert_load"),
        ("a.json", {"load_history": [{"logical_expert_load": [1, 2]}]}, "load_history entry 1 is [2], expected"),
        ("a.json", history(STEPS), "6 steps or entries fill no window of 100; give entries_per_window"),
        ("a.json", {"logical_count": [[1, 2], [3]]}, "not a regular array of numbers: logical_count (ValueError)"),
        ("a.json", {"logical_count": [["1"]]}, "not an array of 1 to"),
        ("a.json", {"logical_count": [[]]}, "not an array of 1 to"),
        ("a.json", {"logical_count": None}, "not an array of 1 to"),
        ("a.json", {"logical_count": [[True]]}, "not an array of 1 to"),
        ("a.json", {"logical_count": [[10**400]]}, "not an array of 1 to"),
        ("a.json", {"logical_count": [1]}, "logical_count is [1], expected [layers, experts]"),
        ("a.json", {"logical_count": [[-1, 2]]}, "logical_count has loads below 0 or, together, above 2^53"),
        ("a.json", {"logical_count": [[2**53, 2]]}, "logical_count has loads below 0 or, together, above 2^53"),
        ("a.json", {"logical_count": [[float("nan")]]}, "logical_count has loads below 0 or, together, above 2^53"),
        ("a.json", {"logical_count": [[0.5]]}, "logical_count has loads that are no whole numbers"),
        ("a.json", {"logical_count": [[0, 0]]}, "a has no load at all"),
        ("a.jsonl", {}, "line 1 has no list logical_expert_load"),
        ("a.csv", {}, "unknown kind of file, expected .npz, .json, .jsonl, .pt or a folder of .pt"),
    ],
)
def test_foreign_json_is_refused(tmp_path: Path, name: str, data: object, message: str) -> None:
    assert refusal(written(tmp_path / name, data)).startswith(message)


def test_entries_of_another_shape_are_named(tmp_path: Path) -> None:
    data = {"load_history": [{"logical_expert_load": [[1, 2]]}, {"logical_expert_load": [[1, 2, 3]]}]}
    assert refusal(written(tmp_path / "a.json", data)) == "load_history entry 2 is [1, 3], expected [1, 2]"


def test_loads_whose_sum_would_overflow_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"logical_expert_load": [[{2**52}]]}}\n' * 3)
    assert refusal(path, 3) == "a has loads that are, together, above 2^53"


def test_deep_nesting_and_other_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" * 200_000)
    assert refusal(path).startswith("not JSON: the file")
    path.write_bytes(b"\xff\xfe\x00")
    assert refusal(path) == "not UTF-8 text (UnicodeDecodeError)"


def test_files_that_are_missing_empty_or_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(tmp_path / "none.json") == "no such file"
    assert refusal(tmp_path / "none.npz") == "no such file"
    assert refusal(tmp_path).startswith("has 0 files in .pt or .json")
    monkeypatch.setattr(recorded, "MAX_JSON_BYTES", 10)
    assert refusal(written(tmp_path / "a.json", history(STEPS))).endswith("bytes, at most 10 are read")
    monkeypatch.setattr(recorded, "MAX_BYTES", 100)
    assert refusal(npz(tmp_path / "a.npz", a=STEPS)).endswith("bytes, at most 100 are read")


def test_windows_are_not_regrouped(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", a=STEPS)
    assert refusal(path, 2) == "holds windows, entries_per_window does not apply"
    assert refusal(written(tmp_path / "a.json", history(STEPS)), 0).startswith("6 steps or entries fill no window of 0")


def test_dumps_of_another_model_in_a_folder_are_named(tmp_path: Path) -> None:
    written(tmp_path / "1.json", {"logical_count": [[1, 2]]})
    written(tmp_path / "2.json", {"logical_count": [[1, 2, 3]]})
    assert refusal(tmp_path) == "2.json is [1, 3], expected [1, 2]"
    written(tmp_path / "2.json", {"logical_count": [[-1, 2]]})
    assert refusal(tmp_path) == "2.json: logical_count has loads below 0 or, together, above 2^53"


def test_foreign_npz_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.array([{"a": 1}], dtype=object))
    assert refusal(path) == "not an array of numbers: a.npy (TypeError)"
    npz(path, a=np.arange(4))
    assert refusal(path) == "a.npy is [4], expected [layers, experts] or windows of it"
    npz(path)
    assert refusal(path) == "has no array"
    path.write_bytes(b"PK\x03\x04 no archive")
    assert refusal(path) == "not an .npz file (BadZipFile)"


def test_an_array_that_claims_more_than_it_holds_takes_no_memory(tmp_path: Path) -> None:
    header = io.BytesIO()
    claim = {"descr": "<i8", "fortran_order": False, "shape": (1 << 20, 1 << 20)}
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(64))
    assert refusal(tmp_path / "a.npz") == "not an array of numbers: a.npy (ValueError)"


def test_a_packed_archive_that_unfolds_too_far_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros((100, 100)))
    monkeypatch.setattr(recorded, "MAX_BYTES", 10_000)
    assert refusal(tmp_path / "a.npz").startswith("has more than")


def test_names_from_files_cannot_write_to_a_terminal(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("\x1b[2J<b>\n.npy", "w") as member:
        np.lib.format.write_array(member, STEPS)
    (trace,) = load_recorded(tmp_path / "a.npz")
    assert trace.name == "__2J_b__"


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from([".npz", ".json", ".jsonl"]), data=st.data())
def test_damaged_files_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / f"a{kind}"
    if kind == ".npz":
        npz(path, a=STEPS)
    else:
        path.write_text(json.dumps(history(STEPS) if kind == ".json" else {"logical_expert_load": STEPS[0].tolist()}))
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(1, len(raw)))])
    with suppress(ValueError):
        assert all(trace.samples.min() >= 0 for trace in load_recorded(path, 1 if kind == ".json" else None))


class Command:
    """What a hostile pickle would run."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("open('ran', 'w').close()",)


@pytest.mark.torch
def test_hostile_tensors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pt"
    path.write_bytes(pickle.dumps({"logical_count": 1}))
    assert refusal(path) == "not a file of torch.save (BadZipFile)"
    torch.save({"logical_count": Command()}, path)
    assert refusal(path) == "not a file of plain tensors (UnpicklingError)"
    assert not (tmp_path / "ran").exists()
    torch.save({"logical_count": torch.zeros(1).expand(1 << 20, 1 << 20)}, path)
    assert refusal(path).startswith("more than")
    torch.save({"logical_count": torch.eye(3).to_sparse()}, path)
    assert refusal(path).startswith("not a plain tensor: logical_count")
    for data in ([1], {"logical_count": [[1]]}, {"records": []}, {"logical_count": torch.ones(2, 2) * 1j}):
        torch.save(data, path)
        assert refusal(path) == "has no tensor of counts logical_count at its top"


def test_the_hook_for_vllm_in_the_guide_writes_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in for vLLM's policy, called as vLLM calls it; rank 1 writes nothing."""
    guide = (Path(__file__).parents[2] / "docs" / "load_traces.md").read_text()
    source = re.search(r"```python\n(# record_eplb.py\n.*?)```", guide, re.DOTALL)
    assert source

    class Policy:
        @classmethod
        def rebalance_experts(cls, weight: Weight, num_replicas: int, **rest: int) -> tuple[type, int, dict[str, int]]:
            return cls, num_replicas, rest

    rank = [0]
    torch = ModuleType("torch")
    torch.distributed = SimpleNamespace(get_rank=lambda: rank[0])  # type: ignore[attr-defined]
    policy = ModuleType("vllm.distributed.eplb.policy.default")
    policy.DefaultEplbPolicy = Policy  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    for name in ("vllm", "vllm.distributed", "vllm.distributed.eplb", "vllm.distributed.eplb.policy"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, policy.__name__, policy)
    monkeypatch.setenv("EPLB_LOADS", str(tmp_path / "loads.jsonl"))
    namespace: dict[str, Any] = {}
    exec(source[1], namespace)
    namespace["register"]()
    for step in STEPS:
        rank[0] = 0
        assert Policy.rebalance_experts(Weight(step), 288, num_nodes=4) == (Policy, 288, {"num_nodes": 4})
        rank[0] = 1
        Policy.rebalance_experts(Weight(step), 288)
    (trace,) = load_recorded(tmp_path / "loads.jsonl")
    assert np.array_equal(trace.counts, STEPS)


class Weight:
    """What the hook asks of a tensor of loads."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def round(self) -> Weight:
        return Weight(np.round(self.values))

    def long(self) -> Weight:
        return Weight(self.values.astype(int))

    def tolist(self) -> Any:
        return self.values.tolist()
