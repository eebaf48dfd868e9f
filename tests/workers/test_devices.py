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


@pytest.mark.parametrize(("index", "device"), [(0, "4"), (1, "6"), (2, "4")])
def test_processes_take_devices_in_turn(
    monkeypatch: pytest.MonkeyPatch, index: int, device: str
) -> None:
    monkeypatch.setenv(devices.VISIBLE, "4,6")
    devices.take(index, count=1)
    assert os.environ[devices.VISIBLE] == device


@pytest.mark.parametrize(("index", "shown"), [(0, "0,1"), (1, "2,3"), (2, "4,0"), (3, "1,2")])
def test_a_process_takes_as_many_as_it_is_given(
    monkeypatch: pytest.MonkeyPatch, index: int, shown: str
) -> None:
    monkeypatch.setenv(devices.VISIBLE, "0,1,2,3,4")
    devices.take(index, count=2)
    assert os.environ[devices.VISIBLE] == shown


def test_where_there_are_fewer_it_takes_each_of_them_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VISIBLE, "4,6")
    devices.take(1, count=3)
    assert sorted(os.environ[devices.VISIBLE].split(",")) == ["4", "6"]
