from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from gpu_eval import grouped_gemm  # noqa: E402
from gpu_eval.grouped_gemm import DTYPES, Groups, choose_kernel, random_weights, reference, run_experts  # noqa: E402
from gpu_eval.shapes import ExpertSize  # noqa: E402
from tests.gpu_eval.recorded_gpu import RecordedGpu  # noqa: E402

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
SIZE = ExpertSize("e", 64, 32, 2)


def weights_of(precision, slots):
    return random_weights(SIZE, slots, precision, torch.Generator().manual_seed(1))


def rows_of(precision, count):
    return torch.randn(count, SIZE.hidden, generator=torch.Generator().manual_seed(2)).to(DTYPES[precision])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp8"])
@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any))
def test_every_kernel_of_the_cpu_gives_the_numbers_of_the_loop_empty_groups_included(precision, sizes):
    matrices = weights_of(precision, len(sizes)).up
    rows, groups = rows_of(precision, sum(sizes)), Groups.of(sizes, CPU)
    expected = reference(rows, matrices, sizes)
    for name, multiply, reason in grouped_gemm._candidates(CPU, precision):
        if reason is None:
            product = multiply(rows, matrices, groups).float()
            torch.testing.assert_close(product, expected, atol=0.03, rtol=0.02, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp8"])
def test_experts_are_down_of_silu_of_gate_times_up(precision):
    sizes = [3, 0, 5]
    weights, rows = weights_of(precision, 3), rows_of(precision, 8)
    got = run_experts(rows, weights, Groups.of(sizes, CPU), choose_kernel(CPU, precision)).float()
    both = reference(rows, weights.up, sizes)
    product = torch.nn.functional.silu(both[:, :32]) * both[:, 32:]
    expected = reference(product.to(DTYPES[precision]), weights.down, sizes)
    torch.testing.assert_close(got, expected, atol=0.06, rtol=0.05)
    assert got.abs().mean() > 0.05


def test_the_cpu_multiplies_in_groups_and_scaled_in_a_loop():
    assert choose_kernel(CPU, "bf16").name == choose_kernel(CPU, "fp32").name == "grouped_mm"
    scaled = choose_kernel(CPU, "fp8")
    assert scaled.name == "scaled_mm_loop"
    assert scaled.rejected == ("scaled_grouped_mm: only on GPUs of compute capability 9",)


@pytest.mark.parametrize(
    ("major", "precision", "first"),
    [
        (9, "bf16", "grouped_mm"),
        (10, "bf16", "grouped_mm"),
        (12, "bf16", "mm_loop"),
        (8, "bf16", "mm_loop"),
        (9, "fp32", "mm_loop"),
        (9, "fp8", "scaled_grouped_mm"),
        (10, "fp8", "scaled_mm_loop"),
    ],
)
def test_gpus_get_the_kernel_of_their_capability(monkeypatch, major, precision, first):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 0))
    monkeypatch.setattr(grouped_gemm, "_fault", lambda *_args: None)
    assert choose_kernel(torch.device("cuda"), precision).name == first


def test_a_kernel_that_gives_wrong_numbers_or_fails_is_passed_over_with_the_reason(monkeypatch):
    monkeypatch.setattr(grouped_gemm, "_grouped_mm", lambda *args: grouped_gemm._mm_loop(*args) * 1.1)
    kernel = choose_kernel(CPU, "bf16")
    assert kernel.name == "mm_loop"
    assert kernel.rejected[0].startswith("grouped_mm: off by")

    def fail(*_args):
        raise RuntimeError("not\ncompiled in")

    monkeypatch.setattr(grouped_gemm, "_grouped_mm", fail)
    assert choose_kernel(CPU, "bf16").rejected == ("grouped_mm: RuntimeError: not compiled in",)
    monkeypatch.setattr(grouped_gemm, "_mm_loop", fail)
    with pytest.raises(ValueError, match=r"no grouped GEMM in bf16 on cpu: grouped_mm: RuntimeError"):
        choose_kernel(CPU, "bf16")


def test_on_a_gpu_a_product_comes_from_a_graph_whose_work_ran_before_on_its_stream(monkeypatch):
    gpu = RecordedGpu(monkeypatch)

    def call():
        gpu.note("call", gpu.current.name)
        return torch.ones(2)

    assert grouped_gemm._from_a_graph(call, CPU).tolist() == [1.0, 1.0]
    assert gpu.calls == [
        ("new", 0),
        ("wait", "side", "current"),
        ("call", "side"),
        ("capture", 0, None, "side"),
        ("call", "side"),
        ("captured",),
        ("replay", 0),
        ("synchronize",),
    ]


def test_a_kernel_that_no_graph_holds_is_passed_over_and_the_stream_stays(monkeypatch):
    gpu = RecordedGpu(monkeypatch)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(grouped_gemm.Groups, "of", classmethod(lambda cls, sizes, device: None))
    monkeypatch.setattr(grouped_gemm, "_random_matrices", lambda *_args: None)
    monkeypatch.setattr(torch, "Generator", lambda _device: SimpleNamespace(manual_seed=lambda seed: None))
    monkeypatch.setattr(torch, "randn", lambda *_sizes, **_options: torch.ones(1))
    monkeypatch.setattr(grouped_gemm, "reference", lambda *_args: torch.ones(1))
    calls = []

    def waiting(*_args):
        calls.append(gpu.current.name)
        if len(calls) == 2:
            raise RuntimeError("operation not permitted when stream is capturing")
        return torch.ones(1)

    monkeypatch.setattr(grouped_gemm, "_grouped_mm", waiting)
    monkeypatch.setattr(grouped_gemm, "_mm_loop", lambda *_args: torch.ones(1))
    kernel = choose_kernel(torch.device("cuda"), "bf16")
    assert (kernel.name, calls, gpu.current.name) == ("mm_loop", ["side", "side"], "current")
    assert kernel.rejected == ("grouped_mm: RuntimeError: operation not permitted when stream is capturing",)


def test_a_torch_without_grouped_gemms_loops(monkeypatch):
    monkeypatch.delattr(torch.nn.functional, "grouped_mm")
    kernel = choose_kernel(CPU, "bf16")
    assert (kernel.name, kernel.rejected) == ("mm_loop", (f"grouped_mm: torch {torch.__version__} has none",))


def test_an_unknown_precision_is_named():
    with pytest.raises(ValueError, match="'int4' is unknown"):
        choose_kernel(CPU, "int4")
