"""The experts of one rank as grouped GEMMs: gate and up, SiLU-mul, down, over rows sorted by slot.

Which kernel multiplies is settled once per machine (`choose_kernel`) and named in every result, so that placements are
all that a comparison changes. Rows: [M, width], the tokens of slot 0, then of slot 1, and so on. Weights lie as
[slots, out, in] and are used transposed, the column-major form that every kernel here takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .precision import PRECISIONS
from .shapes import ExpertSize

functional = torch.nn.functional

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}
"""fp8 has static scales: one per weight row, 1 for tokens, whose values are of unit size here. Sums leave in bf16."""
ALIGNMENT = 16
"""Widths must be multiples of it: every row then starts at 16 bytes, as TMA asks, and fp8 tiles fit."""


@dataclass(frozen=True, slots=True)
class Matrices:
    """One matrix per slot: `values` [slots, out, in] and, for fp8, `scale` float32 [slots, out]."""

    values: Tensor
    scale: Tensor | None


@dataclass(frozen=True, slots=True)
class ExpertWeights:
    """`up` [slots, 2 * intermediate, hidden], gate first; `down` [slots, hidden, intermediate]."""

    up: Matrices
    down: Matrices


@dataclass(frozen=True, slots=True)
class Groups:
    """Rows of each slot: `sizes` known to the host, `offsets` int32 [slots] on the device, the end of each slot's.

    `unit_scale` float32 [rows]: the scales of fp8 tokens, here so that no kernel has to fill them.
    """

    sizes: tuple[int, ...]
    offsets: Tensor
    unit_scale: Tensor

    @classmethod
    def of(cls, sizes: Sequence[int], device: torch.device) -> Groups:
        ends = torch.tensor(sizes, dtype=torch.int64).cumsum(0).to(torch.int32)
        return cls(tuple(sizes), ends.to(device), torch.ones(sum(sizes), device=device))

    @property
    def rows(self) -> int:
        return sum(self.sizes)


CAPTURE = "thread_local"
"""Mode of captures: what other threads do meanwhile, such as NCCL's watchdog or a judge's, is none of their concern."""
Multiply = Callable[[Tensor, Matrices, Groups], Tensor]


@dataclass(frozen=True, slots=True)
class Kernel:
    """`multiply(rows [M, in], matrices, groups) -> [M, out]`; it neither waits for the device nor reads from it."""

    name: str
    multiply: Multiply
    rejected: tuple[str, ...] = ()
    """Kernels that would have come first, and why each did not do here."""


def random_weights(size: ExpertSize, slots: int, precision: str, generator: torch.Generator) -> ExpertWeights:
    """Weights on the generator's device that keep values of unit size."""
    return ExpertWeights(
        _random_matrices(slots, 2 * size.intermediate, size.hidden, precision, generator),
        _random_matrices(slots, size.hidden, size.intermediate, precision, generator),
    )


def _random_matrices(slots: int, rows: int, columns: int, precision: str, generator: torch.Generator) -> Matrices:
    device = generator.device
    values = torch.empty(slots, rows, columns, dtype=DTYPES[precision], device=device)
    size = float(columns) ** -0.5
    for slot in values:
        drawn = torch.randn(rows, columns, generator=generator, device=device)
        slot.copy_(drawn if precision == "fp8" else drawn * size)
    scale = torch.full((slots, rows), size, device=device) if precision == "fp8" else None
    return Matrices(values, scale)


def run_experts(rows: Tensor, weights: ExpertWeights, groups: Groups, kernel: Kernel) -> Tensor:
    """down(silu(gate) * up) of every row by the weights of its slot, [M, hidden]; bf16 where rows are fp8."""
    gate, up = kernel.multiply(rows, weights.up, groups).chunk(2, dim=1)
    product = functional.silu(gate).mul_(up)
    return kernel.multiply(product.to(rows.dtype), weights.down, groups)


def _grouped_mm(rows: Tensor, matrices: Matrices, groups: Groups) -> Tensor:
    product: Tensor = functional.grouped_mm(rows, matrices.values.transpose(1, 2), offs=groups.offsets)
    return product


def _mm_loop(rows: Tensor, matrices: Matrices, groups: Groups) -> Tensor:
    product = rows.new_empty(rows.shape[0], matrices.values.shape[1])
    start = 0
    for values, count in zip(matrices.values, groups.sizes, strict=True):
        if count:
            torch.mm(rows[start : start + count], values.t(), out=product[start : start + count])
            start += count
    return product


def _scaled_grouped_mm(rows: Tensor, matrices: Matrices, groups: Groups) -> Tensor:
    by_row = functional.ScalingType.RowWise
    product: Tensor = functional.scaled_grouped_mm(
        rows,
        matrices.values.transpose(1, 2),
        groups.unit_scale,
        by_row,
        matrices.scale,
        by_row,
        offs=groups.offsets,
        output_dtype=torch.bfloat16,
        use_fast_accum=True,
    )
    return product


def _scaled_mm_loop(rows: Tensor, matrices: Matrices, groups: Groups) -> Tensor:
    assert matrices.scale is not None
    by_row = functional.ScalingType.RowWise
    product = torch.empty(rows.shape[0], matrices.values.shape[1], dtype=torch.bfloat16, device=rows.device)
    start = 0
    for values, scale, count in zip(matrices.values, matrices.scale, groups.sizes, strict=True):
        if count:
            part = slice(start, start + count)
            product[part] = functional.scaled_mm(
                rows[part],
                values.t(),
                groups.unit_scale[part, None],
                by_row,
                scale[None],
                by_row,
                output_dtype=torch.bfloat16,
            )
            start += count
    return product


def choose_kernel(device: torch.device, precision: str) -> Kernel:
    """The fastest kernel that this device should have and that gives the reference's numbers on an uneven example.

    On a GPU it must give them from a CUDA graph.

    Order: `grouped_mm` (bf16 on Hopper and data-centre Blackwell, bf16 and fp32 on CPUs) or `scaled_grouped_mm` (fp8 on
    Hopper), then a loop of one GEMM per slot, which works wherever torch multiplies that precision. On other GPUs
    `grouped_mm` falls back to a loop that reads the offsets back and cannot be captured in a graph, so it is not tried.
    ValueError when nothing does.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is unknown, expected one of {', '.join(PRECISIONS)}")
    rejected: list[str] = []
    for name, multiply, reason in _candidates(device, precision):
        fault = reason or _fault(multiply, device, precision)
        if fault is None:
            return Kernel(name, multiply, tuple(rejected))
        rejected.append(f"{name}: {fault}")
    raise ValueError(f"no grouped GEMM in {precision} on {device}: {'; '.join(rejected)}")


def _candidates(device: torch.device, precision: str) -> list[tuple[str, Multiply, str | None]]:
    """Name, kernel, and the reason to leave it out, fastest first."""
    major = torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else None
    if precision == "fp8":
        grouped_reason = None if major == 9 else "only on GPUs of compute capability 9"
        grouped: tuple[str, Multiply] = ("scaled_grouped_mm", _scaled_grouped_mm)
        loop: tuple[str, Multiply] = ("scaled_mm_loop", _scaled_mm_loop)
    else:
        fits = major is None or (major in (9, 10) and precision == "bf16")
        grouped_reason = None if fits else "only bf16 on GPUs of compute capability 9 and 10"
        grouped, loop = ("grouped_mm", _grouped_mm), ("mm_loop", _mm_loop)
    if not hasattr(functional, grouped[0]):
        grouped_reason = f"torch {torch.__version__} has none"
    return [(*grouped, grouped_reason), (*loop, None)]


def _fault(multiply: Multiply, device: torch.device, precision: str) -> str | None:
    """What is wrong with a kernel's product on five slots, two of them empty; None: nothing."""
    sizes = (3, 0, 17, 130, 0)
    generator = torch.Generator(device).manual_seed(0)
    matrices = _random_matrices(len(sizes), 256, 128, precision, generator)
    rows = torch.randn(sum(sizes), 128, generator=generator, device=device).to(DTYPES[precision])
    groups = Groups.of(sizes, device)
    try:
        call = partial(multiply, rows, matrices, groups)
        product = (_from_a_graph(call, device) if device.type == "cuda" else call()).float()
    except (RuntimeError, AttributeError, TypeError, ValueError) as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    expected = reference(rows, matrices, sizes)
    largest = float((product - expected).abs().max())
    return None if largest <= 0.02 * float(expected.abs().max()) else f"off by {largest:.3g} from the reference"


def _from_a_graph(call: Callable[[], Tensor], device: torch.device) -> Tensor:
    """What `call` gives from a captured graph, since that is how ranks are timed; RuntimeError where none can hold it.

    It is called once before, on the stream that captures: libraries set themselves up in their first call.
    """
    # The outer stream is the current one: a capture that fails leaves its own in its place.
    with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)):
        side, graph = torch.cuda.Stream(device), torch.cuda.CUDAGraph()
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            call()
        with torch.cuda.graph(graph, stream=side, capture_error_mode=CAPTURE):
            product = call()
        graph.replay()
        copy = product.clone()
        torch.cuda.synchronize()
        return copy


def reference(rows: Tensor, matrices: Matrices, sizes: Sequence[int]) -> Tensor:
    """The product in float32 by one plain multiplication per slot; what kernels are held against."""
    parts = rows.float().split(list(sizes))
    scales = [None] * len(sizes) if matrices.scale is None else list(matrices.scale)
    products = [
        part @ (values.float() if scale is None else values.float() * scale[:, None]).t()
        for part, values, scale in zip(parts, matrices.values, scales, strict=True)
    ]
    return torch.cat(products)
