import pytest

from gpu_eval.precision import expert_bytes, token_bytes
from gpu_eval.shapes import EXPERT_SIZES


def test_an_expert_of_deepseek_v3_is_42_mib_in_fp8_and_84_in_bf16():
    size = EXPERT_SIZES["deepseek_v3"]
    assert expert_bytes(size, "bf16") == 84 << 20
    assert (42 << 20) < expert_bytes(size, "fp8") < (42 << 20) * 1.001


def test_scales_of_fp8_tokens_are_counted_in_whole_blocks():
    assert token_bytes(7168, "fp8") == 7168 + 56 * 4
    assert token_bytes(100, "fp8") == 104
    assert token_bytes(7168, "bf16") == 14336


def test_an_unknown_precision_is_named():
    with pytest.raises(ValueError, match=r"'fp7' is unknown, expected one of fp32, bf16, fp8"):
        token_bytes(8, "fp7")
