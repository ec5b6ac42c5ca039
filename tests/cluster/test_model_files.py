"""Which files an engine needs, and how a broken copy is found without reading it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.model_files import INDEX, folder_bytes, folder_problem, needed
from tests.fake_hub import model_files, safetensors

WEIGHTS = "model-00001-of-00002.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = model_files()
    for name in needed(files):
        (tmp_path / name).write_bytes(files[name])
    return tmp_path


def test_weights_configuration_and_tokenizer_are_needed_and_no_second_copy_or_code():
    assert needed(model_files()) == [
        "config.json",
        WEIGHTS,
        "model-00002-of-00002.safetensors",
        INDEX,
        "tokenizer.json",
    ]
    assert needed(["../../etc/x.json", "/etc/x.json", "a*.json", ".hidden.json", "a\nb.json"]) == []


def test_a_whole_folder_has_no_problem(folder: Path):
    assert folder_problem(folder) is None
    assert folder_bytes(folder) == sum(len(data) for name, data in model_files().items() if name in needed([name]))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (WEIGHTS, None, f"lacks {WEIGHTS}"),
        (WEIGHTS, safetensors("layer.0", 5000)[:-1], "bytes, its header says"),
        (WEIGHTS, safetensors("layer.0", 5000) + b"x", "bytes, its header says"),
        (WEIGHTS, b"version https://git-lfs.github.com/spec/v1\n", "no safetensors file"),
        (WEIGHTS, b"", "no safetensors file"),
        (WEIGHTS, struct.pack("<Q", 4) + b"[{}]", "no safetensors file"),
        (WEIGHTS, struct.pack("<Q", 20) + b'{"a":{"data_offsets"', "no safetensors file"),
        (INDEX, b'{"weight_map": {"a": "../../secret.safetensors"}}', "names '../../secret.safetensors'"),
        (INDEX, b'{"weight_map": {"a": 3}}', "cannot be read"),
        (INDEX, b"[" * 100_000, "cannot be read"),
        ("config.json", b"{", "no config.json"),
        ("config.json", None, "no config.json"),
        ("tokenizer.json", None, "no tokenizer"),
    ],
)
def test_what_is_missing_or_broken_is_named(folder: Path, name: str, content: bytes | None, problem: str):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    assert problem in (folder_problem(folder) or "")


def test_no_folder_and_no_weights_are_said(folder: Path):
    assert folder_problem(folder / "absent") == "is no folder"
    for path in [*folder.glob("*.safetensors"), folder / INDEX]:
        path.unlink()
    assert folder_problem(folder) == "has no weights (*.safetensors)"


@given(
    header=st.recursive(
        st.none() | st.integers() | st.text(), lambda each: st.lists(each) | st.dictionaries(st.text(), each)
    )
)
def test_no_header_makes_it_raise(tmp_path_factory: pytest.TempPathFactory, header: object):
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    problem = folder_problem(folder)
    assert problem is None or "model.safetensors" in problem
