"""What a bench says of its machine: nvidia-smi may print anything, and nothing names a person or a place."""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_eval.environment import Gpu, cpu_model, environment, is_idle, memory_gib, parse_gpus

LINE = "GPU-1, NVIDIA H200, 580.95, 143771, 12, 1980, 1980, 35, 700.00, 0"
OTHER = "GPU-2, NVIDIA H200, 580.95, 143771, 12, [N/A], 1980, nan, [Not Supported], 97"


def test_nvidia_smi_is_read_field_by_field() -> None:
    first, second = parse_gpus(f"{LINE}\n{OTHER}\n")
    assert first == {
        "name": "NVIDIA H200",
        "driver": "580.95",
        "memory_mib": 143771.0,
        "memory_used_mib": 12.0,
        "sm_clock_mhz": 1980.0,
        "sm_clock_max_mhz": 1980.0,
        "temperature_c": 35.0,
        "power_limit_w": 700.0,
        "utilization_percent": 0.0,
    }
    assert (second["sm_clock_mhz"], second["temperature_c"], second["power_limit_w"]) == (None, None, None)


def test_only_gpus_that_the_process_may_use_are_told() -> None:
    assert [gpu["utilization_percent"] for gpu in parse_gpus(f"{LINE}\n{OTHER}", frozenset({"2"}))] == [97.0]
    assert len(parse_gpus(f"{LINE}\n{OTHER}", frozenset({"part of a GPU"}))) == 2


@given(st.text() | st.lists(st.text(max_size=8), min_size=10, max_size=10).map(",".join))
def test_whatever_nvidia_smi_prints_is_read(text: str) -> None:
    json.dumps(parse_gpus(text), allow_nan=False)


@pytest.mark.parametrize("text", ["NVIDIA-SMI has failed", "", "a,b\n", "x" * 300_000 + ",1", '"' + "y" * 300_000])
def test_other_output_is_no_gpu(text: str) -> None:
    assert parse_gpus(text) == []


def gpu(utilization: float | None) -> Gpu:
    return parse_gpus(LINE)[0] | {"utilization_percent": utilization}  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("load", "cores", "used", "idle"),
    [
        (0.4, 2, [], True),
        (0.6, 2, [], False),
        (3.0, 64, [0.0, 5.0], True),
        (3.0, 64, [0.0, 40.0], False),
        (7.0, 64, [0.0], False),
        (None, 64, [0.0], None),
        (0.1, 64, [None], None),
        (None, 64, [99.0], False),
    ],
)
def test_idle_is_little_load_on_cores_and_gpus(
    load: float | None, cores: int, used: list[float | None], idle: bool | None
) -> None:
    assert is_idle(load, cores, [gpu(percent) for percent in used]) is idle


def test_cpu_and_memory_are_read_where_they_are_told() -> None:
    assert cpu_model("processor\t: 0\nmodel name\t: Some  CPU @ 2 GHz\nmodel name\t: other\n") == "Some CPU @ 2 GHz"
    assert cpu_model("CPU implementer\t: 0x41\n") is None
    assert memory_gib("MemFree: 1 kB\nMemTotal:       24641536 kB\n") == 23.5
    assert memory_gib("MemTotal: lots kB") is None


def test_an_environment_is_json_and_names_no_person_or_place() -> None:
    told = environment("cpu")
    text = json.dumps(told, allow_nan=False)
    for private in (socket.gethostname(), str(Path.home()), os.getcwd(), f'"{getpass.getuser()}"'):
        assert private not in text
    assert told["cores"] >= 1
    assert told["gpus"] == []
    assert told["packages"]["numpy"]


def test_a_device_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="device is 'tpu', expected cpu or cuda"):
        environment("tpu")


@pytest.mark.torch
def test_without_gpus_cuda_is_an_empty_list(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert environment("cuda")["gpu_count"] == 0


@pytest.mark.torch
@pytest.mark.parametrize("answer", [LINE.replace("GPU-1", "GPU-abc"), "exit 9", None])
def test_gpus_are_told_with_or_without_nvidia_smi(
    answer: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")

    class Properties:
        name = "NVIDIA H200"
        uuid = "abc"
        total_memory = 2**30

    always: Callable[[], bool] = lambda: True  # noqa: E731
    monkeypatch.setattr(torch.cuda, "is_available", always)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    if answer is not None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{answer}\n" if answer == "exit 9" else f"#!/bin/sh\necho '{answer}'\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    told = environment("cuda")
    assert told["gpu_count"] == 1
    assert told["gpus"][0]["name"] == "NVIDIA H200"
    known = answer is not None and answer != "exit 9"
    assert told["gpus"][0]["driver"] == ("580.95" if known else None)
    assert told["gpus"][0]["memory_mib"] == (143771.0 if known else 1024.0)
