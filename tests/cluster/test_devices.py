"""What is made of nvidia-smi: a fake one on PATH, and whatever text it may print."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.devices import GOOD_CHECKS, DeviceState, Health, Reading, parse, read_devices, trouble

GOOD = "0, GPU-aaaa-0, 512, 81559, 41, 0, 0x0000000000000001\n"


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Make nvidia-smi print and exit so, and hold what it was asked."""

    def make(output: str, code: int = 0, old_driver: bool = False) -> Path:
        said = tmp_path / "said"
        said.write_text(output)
        refuse = 'case "$*" in *clocks_event_reasons*) echo "Field is not a valid field to query."; exit 2;; esac'
        script = f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n{refuse if old_driver else ""}\ncat {said}\nexit {code}\n'
        program = tmp_path / "nvidia-smi"
        program.write_text(script)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return tmp_path / "asked"

    return make


def state(**fields) -> DeviceState:
    known = {
        "index": "0",
        "uuid": "GPU-a",
        "used_mib": 10.0,
        "total_mib": 81559.0,
        "temperature_c": 40.0,
        "ecc_errors": 0,
    }
    return DeviceState(**{**known, **fields})


def test_a_device_that_is_well_is_read_and_nothing_is_held_against_it(smi):
    asked = smi(GOOD)
    reading = read_devices("0")
    assert reading.states == (DeviceState("0", "GPU-aaaa-0", 512.0, 81559.0, 41.0, 0),)
    assert trouble(reading.states, exclusive=True) is None
    assert "--id=0" in asked.read_text()


def test_an_older_driver_is_asked_in_its_own_words(smi):
    asked = smi(GOOD, old_driver=True)
    assert len(read_devices("0").states) == 1
    assert "clocks_throttle_reasons.active" in asked.read_text()


def test_devices_are_found_by_the_beginning_of_a_uuid(smi):
    smi(GOOD + "1, GPU-bbbb-1, 0, 81559, 30, [N/A], 0x0\n")
    reading = read_devices("GPU-bbbb,0")
    assert [s.index for s in reading.states] == ["0", "1"]
    assert reading.states[1].ecc_errors is None


@pytest.mark.parametrize(
    ("line", "exclusive", "part"),
    [
        ("0, GPU-a, 30000, 81559, 41, 0, 0x0", True, "another process holds 30000 MiB"),
        ("0, GPU-a, 30000, 81559, 41, 0, 0x0", False, None),
        ("0, GPU-a, 0, 81559, 41, 2, 0x0", False, "2 uncorrected ECC errors"),
        ("0, GPU-a, 0, 81559, 41, 0, 0x0000000000000008", False, "hardware slowdown"),
        ("0, GPU-a, 0, 81559, 41, 0, 0x0000000000000048", False, "hardware slowdown, hardware thermal slowdown"),
        ("0, GPU-a, 0, 81559, 41, 0, 0x0000000000000004", False, None),
        ("0, GPU-a, 0, 81559, 97, 0, 0x0", False, "97 degrees"),
        ("0, GPU-a, [Unknown Error], 81559, 41, 0, 0x0", False, "broken"),
        ("0, GPU-a, [GPU requires reset], [GPU requires reset], 41, 0, 0x0", False, "requires reset"),
        ("0, GPU-a, [N/A], [N/A], [N/A], [N/A], [N/A]", True, None),
    ],
)
def test_what_makes_a_device_unfit_is_said_in_one_line(smi, line, exclusive, part):
    smi(line + "\n")
    said = trouble(read_devices("0").states, exclusive)
    assert said is None if part is None else part in said and "\n" not in said


def test_what_nvidia_smi_does_not_say_is_unknown(smi, monkeypatch, tmp_path):
    for output, code in [
        ("", 0),
        ("no such thing\n", 0),
        ("1, GPU-x, 0, 1, 2, 3, 0x0\n", 0),
        ("boom", 9),
        ("a,b\0", 0),
    ]:
        smi(output, code)
        assert read_devices("0").unknown
    smi(GOOD)
    assert read_devices("").unknown
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert read_devices("0").unknown == "nvidia-smi is not installed"


def test_a_lost_device_is_broken_not_unknown(smi):
    smi("Unable to determine the device handle for GPU0000:04:00.0: GPU is lost.  Reboot the system\n", 15)
    reading = read_devices("0")
    assert reading.broken is not None
    assert "GPU is lost" in reading.broken


@given(st.text(max_size=400) | st.lists(st.text(max_size=30), min_size=7, max_size=7).map(", ".join))
def test_any_text_is_a_reading(text):
    reading = parse(text, "0")
    assert bool(reading.states) != bool(reading.unknown)
    trouble(reading.states, exclusive=True)


def test_one_bad_reading_holds_jobs_back_and_two_put_the_slot_out_until_it_is_well_for_a_while():
    health = Health(exclusive=True)
    good, full = Reading((state(),)), Reading((state(used_mib=5000.0),))
    health.tell(full)
    assert health.trouble is not None
    assert health.quarantined is None
    health.tell(good)
    assert health.trouble is None
    health.tell(full)
    health.tell(full)
    assert health.quarantined is not None
    assert health.quarantined.startswith("quarantined: GPU 0")
    for _ in range(GOOD_CHECKS - 1):
        health.tell(good)
        assert health.trouble is not None
    health.tell(good)
    assert health.trouble is health.quarantined is None


def test_uncorrected_errors_put_it_out_for_good():
    health = Health(exclusive=False)
    health.tell(Reading((state(ecc_errors=1),)))
    for _ in range(10):
        health.tell(Reading((state(),)))
    assert health.quarantined is not None
    assert "ECC" in health.quarantined


def test_a_machine_without_nvidia_smi_is_never_held_against_a_device_but_its_silence_later_is():
    health = Health(exclusive=True)
    for _ in range(5):
        health.tell(Reading(unknown="nvidia-smi is not installed"))
    assert health.trouble is None
    health.tell(Reading((state(),)))
    health.tell(Reading(unknown="nvidia-smi did not answer"))
    health.tell(Reading(unknown="nvidia-smi did not answer"))
    assert health.quarantined is not None
    assert "cannot be checked any more" in health.quarantined
