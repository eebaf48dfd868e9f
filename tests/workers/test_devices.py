"""Accelerators for each pool process."""

from __future__ import annotations

import os

import pytest

from workers import devices

DEV = ["null", "nvidia0", "nvidia1", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"]


def test_all_devices_of_the_host_are_visible_in_the_order_of_their_numbers() -> None:
    assert devices.visible({}, names=DEV) == ["0", "1", "2", "10"]


def test_the_variable_has_the_last_word() -> None:
    assert devices.visible({devices.VISIBLE: "3, GPU-8f1"}, names=DEV) == ["3", "GPU-8f1"]
    assert devices.visible({devices.VISIBLE: ""}, names=DEV) == []


@pytest.mark.parametrize(
    ("visible", "count", "shown"),
    [
        ("4,6", 1, ["4", "6", "4"]),
        ("0,1,2,3,4", 2, ["0,1", "2,3", "4,0", "1,2"]),
    ],
)
def test_processes_take_devices_in_turn(
    monkeypatch: pytest.MonkeyPatch, visible: str, count: int, shown: list[str]
) -> None:
    for index, device in enumerate(shown):
        monkeypatch.setenv(devices.VISIBLE, visible)
        devices.take(index, count=count)
        assert os.environ[devices.VISIBLE] == device


def test_where_there_are_fewer_it_takes_each_of_them_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VISIBLE, "4,6")
    devices.take(1, count=3)
    assert sorted(os.environ[devices.VISIBLE].split(",")) == ["4", "6"]
