"""Which addresses are public, however they are written, and what an allow list opens."""

from __future__ import annotations

import pytest

from flowd.destinations import ACCEPTED, AllowList, Destination


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "127.0.0.1 is a loopback address"),
        ("127.8.9.1", "127.8.9.1 is a loopback address"),
        ("169.254.169.254", "169.254.169.254 is a link-local address"),
        ("10.1.2.3", "10.1.2.3 is a private address"),
        ("172.16.0.1", "172.16.0.1 is a private address"),
        ("192.168.1.1", "192.168.1.1 is a private address"),
        ("100.64.0.1", "100.64.0.1 is a private address"),
        ("0.0.0.0", "0.0.0.0 is the unspecified address"),
        ("224.0.0.1", "224.0.0.1 is a multicast address"),
        ("240.0.0.1", "240.0.0.1 is a reserved address"),
        ("255.255.255.255", "255.255.255.255 is a reserved address"),
        ("::", ":: is the unspecified address"),
        ("::1", "::1 is a loopback address"),
        ("fe80::1%eth0", "fe80::1 is a link-local address"),
        ("fd00:ec2::254", "fd00:ec2::254 is a private address"),
        ("fec0::1", "fec0::1 is a private address"),
        ("192.0.0.192", "192.0.0.192 is a private address"),
        ("168.63.129.16", "168.63.129.16 is a private address"),
        ("3fff::1", "3fff::1 is a private address"),
        ("ff02::1", "ff02::1 is a multicast address"),
        ("::7f00:1", "::7f00:1 is a reserved address"),
        ("::ffff:127.0.0.1", "127.0.0.1 is a loopback address"),
        ("::ffff:a9fe:a9fe", "169.254.169.254 is a link-local address"),
        ("2002:a9fe:a9fe::1", "169.254.169.254 is a link-local address"),
        ("64:ff9b::7f00:1", "127.0.0.1 is a loopback address"),
        ("64:ff9b:1::7f00:1", "64:ff9b:1::7f00:1 is a reserved address"),
        ("2001:0:7f00:1::1", "127.0.0.1 is a loopback address"),
    ],
)
def test_an_address_that_is_not_public_is_refused_however_it_is_wrapped(
    address: str, reason: str
) -> None:
    assert AllowList().find_refused("name.example", 80, [address]) == reason


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_a_public_address_needs_no_entry(address: str) -> None:
    assert AllowList().find_refused("name.example", 80, [address]) is None


def test_one_private_address_among_public_ones_refuses_the_host() -> None:
    refused = AllowList().find_refused("name.example", 80, ["8.8.8.8", "10.0.0.1"])

    assert refused == "10.0.0.1 is a private address"


@pytest.mark.parametrize(
    ("entry", "host", "port", "address", "is_allowed"),
    [
        ("10.0.0.5:8080", "10.0.0.5", 8080, "10.0.0.5", True),
        ("10.0.0.5:8080", "10.0.0.5", 8081, "10.0.0.5", False),
        ("10.0.0.5:8080", "any.example", 8080, "10.0.0.5", True),
        ("10.0.0.5", "10.0.0.5", 1, "10.0.0.5", True),
        ("10.0.0.5", "10.0.0.6", 1, "10.0.0.6", False),
        ("10.0.0.5", "mapped", 1, "::ffff:10.0.0.5", True),
        ("10.0.0.0/8", "10.9.9.9", 80, "10.9.9.9", True),
        ("10.0.0.0/8:80", "10.9.9.9", 81, "10.9.9.9", False),
        ("::1", "localhost", 80, "::1", True),
        ("[::1]:80", "localhost", 80, "::1", True),
        ("[::1]:80", "localhost", 81, "::1", False),
        ("fd00::/8", "x", 81, "fd12::1", True),
        ("*.internal", "db.internal", 80, "10.0.0.1", True),
        ("*.internal", "a.db.internal.", 80, "10.0.0.1", True),
        ("*.internal", "internal", 80, "10.0.0.1", False),
        ("*.internal", "evilinternal", 80, "10.0.0.1", False),
        ("*.internal:80", "db.internal", 81, "10.0.0.1", False),
        ("Db.Internal", "dB.iNTERNAL", 80, "10.0.0.1", True),
        ("db.internal", "db.internal.evil.example", 80, "10.0.0.1", False),
        ("localhost:80", "127.0.0.1", 80, "127.0.0.1", False),
    ],
)
def test_an_entry_opens_what_it_names_and_no_more(
    entry: str, host: str, port: int, address: str, is_allowed: bool
) -> None:
    refused = AllowList([entry]).find_refused(host, port, [address])

    assert (refused is None) is is_allowed


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "*",
        "10.0.0",
        "10.0.0.5/8",
        "a b",
        "http://x",
        "x:0",
        "x:70000",
        "[x]:80",
        "*.*.x",
        "::1:",
    ],
)
def test_an_entry_that_names_nothing_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="hosts such as") as error:
        Destination.parse(entry)

    assert str(error.value) == ACCEPTED
