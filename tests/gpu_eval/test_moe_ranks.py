from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from gpu_eval import device_memory, moe_ranks  # noqa: E402
from gpu_eval.moe_ranks import MoeRanks  # noqa: E402
from gpu_eval.shapes import EXPERT_SIZES, ExpertSize  # noqa: E402
from tests.gpu_eval.recorded_gpu import RecordedGpu  # noqa: E402

pytestmark = pytest.mark.torch

TINY = EXPERT_SIZES["tiny"]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp8"])
def test_every_replay_takes_time_and_a_rank_without_tokens_none(precision):
    ranks = MoeRanks(TINY, 4, precision=precision, replays=6, weight_sets=2)
    seconds = ranks.seconds([5, 0, 300, 1])
    assert seconds.shape == (6,)
    assert (seconds > 0).all()
    assert ranks.seconds([0, 0, 0, 0]).tolist() == [0.0] * 6
    assert ranks.device_name.startswith("cpu, ")


def test_replays_rotate_over_the_weight_sets_with_the_rows_and_slots_asked_for(monkeypatch):
    used = []
    ranks = MoeRanks(TINY, 2, replays=5, weight_sets=3)
    real = ranks._run

    def run(rows, groups, weights):
        used.append((tuple(rows.shape), groups.sizes, groups.offsets.tolist(), id(weights)))
        return real(rows, groups, weights)

    monkeypatch.setattr(ranks, "_run", run)
    ranks.seconds([3, 4000])
    sets = [id(weights) for weights in ranks._weights]
    assert len(set(sets)) == 3
    assert [call[3] for call in used[1:]] == [sets[0], sets[1], sets[2], sets[0], sets[1]]
    assert {call[:2] for call in used} == {((4003, 64), (3, 4000))}
    assert used[0][2] == [3, 4003]


def test_tokens_that_do_not_fit_the_slots_are_refused():
    ranks = MoeRanks(TINY, 3)
    for tokens in ([1, 2], [1, 2, -1], []):
        with pytest.raises(ValueError, match="expected 3 >= 0"):
            ranks.seconds(tokens)


def test_what_the_device_cannot_hold_is_refused_before_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(device_memory, "free_bytes", lambda device: 300_000)
    with pytest.raises(ValueError, match=r"^2 sets of 18 tiny experts takes .* GiB free; take fewer weight_sets$"):
        MoeRanks(TINY, 18)
    ranks = MoeRanks(TINY, 2, weight_sets=1)
    with pytest.raises(ValueError, match=r"^a rank of 40000 tokens takes .*; bring fewer tokens per GPU$"):
        ranks.seconds([40_000, 0])
    assert (ranks.seconds([40, 0]) > 0).all()


def test_free_memory_is_a_plausible_number():
    assert (1 << 20) < device_memory.free_bytes(torch.device("cpu")) < (1 << 50)


def test_a_gpus_free_memory_includes_what_torch_has_cached(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)
    assert device_memory.free_bytes(torch.device("cuda", 0)) == 1300


@pytest.mark.parametrize(
    ("size", "slots", "device", "options", "message"),
    [
        (TINY, 0, "cpu", {}, "slots 0"),
        (TINY, 1, "cpu", {"weight_sets": 0}, "weight_sets 0"),
        (TINY, 1, "cpu", {"replays": 1}, "replays 1"),
        (ExpertSize("odd", 72, 32, 1), 1, "cpu", {}, "hidden is 72, expected a multiple of 16"),
        (TINY, 1, "gpu", {}, "device 'gpu' is unknown"),
        (TINY, 1, "meta", {}, "device 'meta' is not supported"),
        (TINY, 1, "cuda:99", {}, "torch sees"),
        (TINY, 1, "cpu", {"precision": "int4"}, "'int4' is unknown"),
    ],
)
def test_what_makes_no_rank_is_refused_in_one_line(size, slots, device, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        MoeRanks(size, slots, device, **options)
    assert "\n" not in str(caught.value)


def test_on_a_gpu_each_set_is_captured_once_into_one_pool_and_replayed_between_events_after_a_flush(monkeypatch):
    ranks = MoeRanks(TINY, 2, replays=3, weight_sets=2)
    gpu = RecordedGpu(monkeypatch)
    ranks._stream = torch.cuda.Stream(ranks.device)
    ranks._flush = SimpleNamespace(zero_=lambda: gpu.outside("flush"))
    sets = [id(weights) for weights in ranks._weights]
    run = ranks._run

    def noted(rows, groups, weights):
        gpu.note("run", gpu.current.name, len(rows), sets.index(id(weights)))
        return run(rows, groups, weights)

    monkeypatch.setattr(ranks, "_run", noted)
    rows = ranks._take_rows(4)
    seconds = ranks._replay(rows, moe_ranks.Groups.of([1, 3], torch.device("cpu")))
    assert seconds.tolist() == [0.001, 0.002, 0.003]
    timed = [call for number in (0, 1, 0) for call in (("flush",), ("record",), ("replay", number), ("record",))]
    assert gpu.calls == [
        ("wait", "side", "current"),
        ("run", "side", 4, 0),
        ("new", 0),
        ("capture", 0, None, "side"),
        ("run", "side", 4, 0),
        ("captured",),
        ("new", 1),
        ("capture", 1, (0, 0), "side"),
        ("run", "side", 4, 1),
        ("captured",),
        ("replay", 0),
        ("replay", 1),
        *timed,
        ("synchronize",),
    ]
