"""Webhooks go to public addresses, and to networks that the setting names."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.webhooks import addresses

REFUSED = (
    "127.0.0.1",
    "127.8.9.1",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",  # Alibaba's metadata
    "169.254.1.1",
    "169.254.169.254",  # metadata of AWS, Google, Azure and others
    "168.63.129.16",  # Azure's wire server
    "192.0.0.192",  # Oracle's metadata
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "[::1]",
    "::ffff:127.0.0.1",
    "::ffff:a9fe:a9fe",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::7f00:1",
    "fc00::1",
    "fd00:ec2::254",  # AWS' metadata
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:808:808::1",
    "3fff::1",
    "4000::1",
)
PUBLIC = ("8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700:4700::1111", "::ffff:8.8.8.8")


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not addresses.are_allowed([address], allowed=())


@pytest.mark.parametrize("address", [*PUBLIC, "64:ff9b::8.8.8.8"])
def test_a_public_address_is_allowed(address: str) -> None:
    assert addresses.are_allowed([address], allowed=())


def test_one_address_that_is_refused_refuses_the_host() -> None:
    assert not addresses.are_allowed(["8.8.8.8", "10.0.0.1"], allowed=())
    assert not addresses.are_allowed(["10.0.0.1", "8.8.8.8"], allowed=())


def test_a_host_without_addresses_is_refused() -> None:
    assert not addresses.are_allowed([], allowed=())


def test_a_network_that_the_setting_names_is_allowed_and_no_other() -> None:
    allowed = (ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/8"))
    assert addresses.are_allowed(["10.1.2.3", "fd00::1"], allowed=allowed)
    assert addresses.are_allowed(["::ffff:10.1.2.3"], allowed=allowed)
    assert not addresses.are_allowed(["10.2.0.1"], allowed=allowed)
    assert not addresses.are_allowed(["::1"], allowed=allowed)


@given(st.ip_addresses(v=4))
def test_an_address_in_one_of_version_6_is_judged_as_itself(
    address: ipaddress.IPv4Address,
) -> None:
    alone = addresses.are_allowed([str(address)], allowed=())
    assert addresses.are_allowed([f"::ffff:{address}"], allowed=()) == alone
    assert addresses.are_allowed([f"64:ff9b::{address}"], allowed=()) == alone


@pytest.mark.parametrize(
    ("host", "is_one"),
    [("127.0.0.1", True), ("::1", True), ("[::1]", True), ("example.com", False), ("", False)],
)
def test_an_address_is_told_from_a_name(host: str, *, is_one: bool) -> None:
    assert addresses.is_literal(host) is is_one
