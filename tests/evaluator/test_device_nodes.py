"""Which nodes a slot's devices open, by what the driver tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from adrs_ray.errors import UsageError
from adrs_ray.evaluator import device_nodes
from adrs_ray.evaluator.device_nodes import NO_DEVICES, device_access
from tests.evaluator.fake_driver import UUIDS, cut_into_instances, write_driver

CONTROL = {"nvidiactl", "nvidia-uvm"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(device_nodes, "ROOT", tmp_path)
    return write_driver(tmp_path)


def opened(devices: str) -> set[str]:
    return {Path(node).name for node in device_access(devices).nodes}


def test_a_device_opens_its_own_node_and_is_named_by_its_uuid(root: Path) -> None:
    for device, uuid, node in (("0", UUIDS[0], "nvidia1"), ("1", UUIDS[1], "nvidia0"), (UUIDS[1], UUIDS[1], "nvidia0")):
        assert device_access(device).visible == uuid
        assert opened(device) == {*CONTROL, node}
    assert device_access("1,0").visible == f"{UUIDS[1]},{UUIDS[0]}"
    assert opened("1,0") == {*CONTROL, "nvidia0", "nvidia1"}


def test_the_beginning_of_a_uuid_names_its_device(root: Path) -> None:
    assert device_access("GPU-bbbb").visible == UUIDS[1]


def test_what_cuda_reads_at_its_start_can_be_read(root: Path) -> None:
    readable = device_access("0").readable
    assert str(root / "proc/driver/nvidia") in readable
    assert str(root / "sys/bus/pci/devices/0000:01:00.0") in readable
    assert str(root / "sys/bus/pci/devices/0000:02:00.0") not in readable


def test_a_gpu_that_is_not_there_is_refused_in_one_line(root: Path) -> None:
    for device in ("2", "GPU-cccc"):
        with pytest.raises(UsageError, match=f"GPU {device} is not among the 2") as caught:
            device_access(device)
        assert "\n" not in str(caught.value)


def test_a_gpu_without_a_node_here_is_not_counted(root: Path) -> None:
    (root / "dev/nvidia1").unlink()
    assert device_access("0").visible == UUIDS[1]


def test_where_the_driver_does_not_tell_all_nodes_are_opened_and_names_stay(root: Path) -> None:
    told = root / "proc/driver/nvidia/gpus/0000:01:00.0/information"
    told.write_text(told.read_text().replace(UUIDS[0], "GPU-????????-????-????-????-????????????"))
    assert device_access("0").visible == "0"
    assert opened("0") == {*CONTROL, "nvidia0", "nvidia1"}


def test_an_instance_opens_the_nodes_of_instances_and_not_those_that_make_them(root: Path) -> None:
    cut_into_instances(root)
    assert device_access("MIG-12").visible == "MIG-12"
    assert opened("MIG-12") == {*CONTROL, "nvidia0", "nvidia1", "nvidia-cap12", "nvidia-cap13"}
    assert opened("0") == {*CONTROL, "nvidia1"}


def test_without_the_paging_node_the_slot_is_refused(root: Path) -> None:
    (root / "dev/nvidia-uvm").unlink()
    with pytest.raises(UsageError, match="nvidia-uvm is not there"):
        device_access("0")


def test_no_devices_and_no_driver_open_nothing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_access("") == NO_DEVICES
    monkeypatch.setattr(device_nodes, "ROOT", tmp_path / "elsewhere")
    assert device_access("3").nodes == ()
    assert device_access("3").visible == "3"
