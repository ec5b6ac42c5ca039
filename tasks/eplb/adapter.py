"""The untrusted side: keeps a program's text, runs it on what the referee sends, and hands out the maps it gave.

Every observation is one round, a mapping with an `op`:

- `rehearse`: the protocol of `rebalance` with maps made beforehand in place of a program's. The referee asks for it
  before any of the program's code has run, so that it learns what a round costs without one.
- `load`: executes the program.
- `rebalance`: as many calls as `weights` has inputs, one after the other, all their maps kept until the last is done.
- `inspect`: what can be seen from here alone of the last round (memory shared, inputs altered, threads left).
- `odd`: one input of an odd type or layout, where an exception is an answer.
- `believe`: one call whose maps go out as they are, for `paper` scoring.

Times that are told here are a second opinion: what counts is the referee's clock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns
from types import CodeType, ModuleType
from typing import Any

import numpy as np
import torch

from .candidate import code_of, new_module

ENTRY = "rebalance_experts"
BUILD = "build"
NAMES = ("physical_to_logical", "logical_to_physical", "expert_count")
INTEGERS = (torch.int64, torch.int32, torch.int16)
COMPACT = torch.int16
"""How maps travel: experts and slots are few."""

Maps = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Call = Callable[..., Any]


class InterfaceError(Exception):
    """The program does not define its entry."""


class Program:
    """A program's text, what it defines once it is loaded, and the last rounds."""

    def __init__(self, code: CodeType) -> None:
        self.code = code
        self.module: ModuleType | None = None
        self.threads = frozenset(threading.enumerate())
        """Those that are none of its own."""
        self.props: dict[tuple[int, ...], list[Maps]] = {}
        self.inputs: list[torch.Tensor] = []
        self.given: Any = None
        self.answers: list[Any] = []
        self.before: list[Any] = []
        """The answers of the round before: still held, so that memory they lie in is not given out again."""

    def entry(self) -> Call:
        """The function that balances. Executes the program when it is first asked for; raises what that raises."""
        if self.module is None:
            self.props.clear()
            self.module = new_module()
            exec(self.code, self.module.__dict__)
        function = getattr(self.module, ENTRY, None)
        if not callable(function):
            raise InterfaceError(
                f"the program must define {ENTRY}(weight, num_replicas, num_groups, num_nodes, num_gpus)"
            )
        return function  # type: ignore[no-any-return]


def prepare() -> None:
    """Of a process that waits for its program: a CUDA context takes seconds, where there is a GPU."""
    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")


def load(source: str) -> Program:
    """Compile a program without executing it. Raises SyntaxError."""
    return Program(code_of(source))


def build(program: Program, folder: str) -> None:
    """The build step: the program's own `build(folder)`, where it has one. Raises what the program raises."""
    if BUILD in program.code.co_names:
        program.entry()
        step = getattr(program.module, BUILD, None)
        if callable(step):
            step(folder)


def act(program: Program, observation: Mapping[str, Any]) -> Any:
    """One round; see above. Raises InterfaceError, and what the program raises except in `odd` and `believe`."""
    return _ROUNDS[observation["op"]](program, observation)


def _rehearse(program: Program, told: Mapping[str, Any]) -> dict[str, Any]:
    key = (len(told["weights"]), *told["weights"].shape[1:], *told["sizes"], told["width"])
    if key not in program.props:
        program.props[key] = _props(*key, told["device"])
    props = iter(program.props[key])
    return _play(program, lambda *_: next(props), told)


def _props(calls: int, layers: int, experts: int, slots: int, *rest: Any) -> list[Maps]:
    """Maps of these sizes, of no other meaning: `rest` ends with the width of the second one and the device."""
    width, device = rest[-2:]
    counts = torch.ones(layers, experts, dtype=torch.int64, device=device)
    counts[0, 0] = width
    return [
        (
            torch.zeros(layers, slots, dtype=torch.int64, device=device),
            torch.full((layers, experts, width), -1, dtype=torch.int64, device=device),
            counts.clone(),
        )
        for _ in range(calls)
    ]


def _load(program: Program, _: Mapping[str, Any]) -> int:
    program.entry()
    return 0


def _rebalance(program: Program, told: Mapping[str, Any]) -> dict[str, Any]:
    return _play(program, program.entry(), told)


def _play(
    program: Program, function: Call, told: Mapping[str, Any], clock: Callable[[], int] = perf_counter_ns
) -> dict[str, Any]:
    """{"answers": what `_packed` makes of each call, "seconds": what each took by our own clock}."""
    device, sizes = told["device"], tuple(told["sizes"])
    wait = torch.cuda.synchronize if device == "cuda" else _nothing
    given = told["weights"]
    inputs = [torch.from_numpy(one).to(device, torch.int64, copy=True) for one in given]
    answers, seconds = [], np.empty(len(inputs))
    for number, weight in enumerate(inputs):
        wait()
        started = clock()
        answer = function(weight, *sizes)
        wait()
        seconds[number] = (clock() - started) * 1e-9
        answers.append(answer)
    program.before = program.answers
    program.inputs, program.given, program.answers = inputs, given, answers
    return {"answers": [_packed(answer, sizes[0], device) for answer in answers], "seconds": seconds}


def _nothing() -> None:
    pass


def _packed(answer: Any, slots: int, device: str) -> list[Any] | str:
    """The three maps as small numpy arrays, without columns in which no copy can stand, or what is wrong with them.

    Whether values fit the small type, and whether what is left out is all -1, `inspect` looks at off the clock.
    """
    wrong = _misfit(answer, device)
    if wrong:
        return wrong
    placed, inverse, counts = answer
    most = int(counts.max()) if counts.numel() else 0
    if placed.ndim == 2 and counts.ndim == 2 and most > slots - counts.shape[1] + 1:
        return f"expert_count is {most}, an expert can have at most {slots - counts.shape[1] + 1} copies"
    if inverse.ndim == 3:
        inverse = inverse[:, :, : max(most, 0)]
    elif inverse.ndim > 3 or inverse.numel() > counts.numel() * slots:
        return f"logical_to_physical is {_extents(inverse)}, expected [layers, experts, width]"
    return [part.to("cpu", COMPACT).numpy() for part in (placed, inverse, counts)]


def _misfit(answer: Any, device: str) -> str:
    if type(answer) not in (tuple, list) or len(answer) != 3:
        return f"{ENTRY} returned {_kind(answer)}, expected the three tensors {', '.join(NAMES)}"
    for name, part in zip(NAMES, answer, strict=True):
        if type(part) is not torch.Tensor:
            return f"{name} is {_kind(part)}, expected a plain torch.Tensor"
        if part.dtype not in INTEGERS:
            return f"{name} is {part.dtype}, expected int64, int32 or int16"
        if part.device.type != device:
            return f"{name} is on {part.device.type}, expected on {device}"
        if part.layout is not torch.strided:
            return f"{name} is {part.layout}, expected torch.strided"
    return ""


def _kind(value: Any) -> str:
    length = f" of {len(value)}" if type(value) in (tuple, list, dict) else ""
    return f"{'an' if type(value).__name__[0] in 'aeiou' else 'a'} {type(value).__name__}{length}"


def _extents(tensor: torch.Tensor) -> str:
    return str(list(tensor.shape))


def _inspect(program: Program, _: Mapping[str, Any]) -> list[str]:
    """What was wrong with the last round of `rebalance`, each in a line; its answers were well-formed tensors."""
    findings = []
    for number, (weight, given) in enumerate(zip(program.inputs, program.given, strict=True)):
        if not torch.equal(weight.cpu(), torch.from_numpy(given).to(torch.int64)):
            findings.append(f"call {number} of a round altered its input")
    for number, (placed, inverse, counts) in enumerate(program.answers):
        if not all(torch.equal(part.to(COMPACT).to(part.dtype), part) for part in (placed, inverse, counts)):
            findings.append(f"call {number} of a round named experts or slots that cannot exist")
        if inverse.ndim == 3 and counts.numel() and bool((inverse[:, :, max(int(counts.max()), 0) :] != -1).any()):
            findings.append(f"call {number} of a round: logical_to_physical is not -1 after the copies of an expert")
    findings += _shared(program.inputs, [*program.before, *program.answers])
    own = [thread.name[:40] for thread in threading.enumerate() if thread not in program.threads]
    if own:
        findings.append(f"threads are alive after the program has returned: {', '.join(own[:3])}")
    return findings[:4]


def _shared(inputs: Sequence[torch.Tensor], answers: Sequence[Any]) -> list[str]:
    """Whether any answer lies in the memory of an input or of another call's answer."""
    owners = {_memory(weight): "an input" for weight in inputs}
    for answer in answers:
        own = {_memory(part): name for name, part in zip(NAMES, answer, strict=True) if part.numel()}
        for memory, name in own.items():
            if memory in owners:
                return [f"{name} lies in the memory of {owners[memory]}: every call must give new tensors"]
        owners |= {memory: f"an earlier call's {name}" for memory, name in own.items()}
    return []


def _memory(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage().data_ptr())


def _odd(program: Program, told: Mapping[str, Any]) -> dict[str, Any]:
    """{"answer": as `_packed`} or {"raised": one line}."""
    weight = torch.from_numpy(told["weight"]).to(told["device"], getattr(torch, told["dtype"]), copy=True)
    if told["strided"]:
        weight = torch.stack([weight, weight + 1], dim=2)[:, :, 0]
    function, sizes = program.entry(), tuple(told["sizes"])
    try:
        answer = function(weight, *sizes)
    except Exception as error:
        return {"raised": f"{type(error).__name__}: {str(error)[:200]}"}
    return {"answer": _packed(answer, sizes[0], told["device"])}


def _believe(program: Program, told: Mapping[str, Any]) -> dict[str, Any]:
    """{"maps": the three maps, whatever their extents} or {"raised": one line}."""
    function = program.entry()
    try:
        answer = function(torch.from_numpy(told["weight"]), *told["sizes"])
        return {"maps": [np.asarray(part.detach().cpu()).astype(np.int32) for part in answer]}
    except Exception as error:  # publicly a program that fails scores 0
        return {"raised": f"{type(error).__name__}: {str(error)[:200]}"}


_ROUNDS: Mapping[str, Callable[[Program, Mapping[str, Any]], Any]] = {
    "rehearse": _rehearse,
    "load": _load,
    "rebalance": _rebalance,
    "inspect": _inspect,
    "odd": _odd,
    "believe": _believe,
}
