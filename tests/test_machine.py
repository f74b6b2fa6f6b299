"""What a process may use of the machine, and the refusal of what does not fit."""

import os

import pytest
import torch
from tiny import tiny

from collapse_lab import data, machine, preflight
from collapse_lab.errors import InputError
from collapse_lab.flags import configured
from collapse_lab.preflight import require_fitting, require_memory

CPU = torch.device("cpu")
TOTAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_cores_are_shared_by_the_processes_of_one_training(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert machine.cores() == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert machine.cores() == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert machine.cores() == 1


def test_free_memory_is_what_is_available_and_not_all_there_is(tmp_path, monkeypatch):
    assert 0 < machine.free_memory(CPU) <= TOTAL
    told = tmp_path / "meminfo"
    told.write_text(
        "MemTotal:       24683232 kB\nMemFree:         1000 kB\nMemAvailable:    2000 kB\nHugePages_Total:    0\n"
    )
    monkeypatch.setattr(machine, "MEMINFO", told)
    assert machine.free_memory(CPU) == 2000 * 1024
    told.unlink()
    assert machine.free_memory(CPU) == TOTAL


@pytest.mark.parametrize("deterministic", [False, True])
def test_kernels_are_measured_unless_they_are_to_be_deterministic(monkeypatch, deterministic):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", deterministic)
    before = torch.backends.cudnn.benchmark
    with machine.fastest_kernels():
        assert torch.backends.cudnn.benchmark is not deterministic
    assert torch.backends.cudnn.benchmark is before


def test_etas_are_held_against_the_free_memory(tmp_path, monkeypatch):
    told = tmp_path / "meminfo"
    monkeypatch.setattr(machine, "MEMINFO", told)
    config = configured(("momentum-eta",), {"config": None, "preset": (), "train__device": "cpu"})[1][0]
    need = 1000 * config.network.projector_dim * 4
    told.write_text(f"MemAvailable: {need // 1024} kB")
    require_memory(config, 1000)
    told.write_text(f"MemAvailable: {need // 1024 - 1} kB")
    with pytest.raises(
        InputError, match=r"etas of 1000 images take 0.000512 GB, and there are 0.000511 GB free; choose"
    ):
        require_memory(config, 1000)


def test_every_process_has_a_test_image(monkeypatch):
    config = tiny(data__test_images=20, train__batch=24)
    images = data.load(config.data)
    monkeypatch.setattr(preflight, "processes", lambda: (0, 12))
    require_fitting(config, images)
    monkeypatch.setattr(preflight, "processes", lambda: (0, 24))
    with pytest.raises(
        InputError, match="found 20 test images and 80 labelled training images, must be at least one for"
    ):
        require_fitting(config, images)
