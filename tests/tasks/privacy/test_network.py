"""IP and MAC addresses of machines; versions, times, paths and addresses of nobody stay."""

import pytest

from tasks.privacy.network import find_ips, find_macs

FOUND = [
    ("from 93.184.216.34, 151.101.1.69.", ["93.184.216.34", "151.101.1.69"]),
    ("http://93.184.216.34:80/ and 93.184.216.34/24", ["93.184.216.34", "93.184.216.34"]),
    ("93.184.216.34-93.184.216.40", ["93.184.216.34", "93.184.216.40"]),
    ("nameserver 8.8.8.8; logged in from 6.2.49.2", ["8.8.8.8", "6.2.49.2"]),
    ("at 2001:4860:4860::8888.", ["2001:4860:4860::8888"]),
    ("[2001:4860:4860:0:0:0:0:8888]", ["2001:4860:4860:0:0:0:0:8888"]),
    ("00:1B:44:11:3A:B7 00-1b-44-11-3a-b8", ["00:1B:44:11:3A:B7", "00-1b-44-11-3a-b8"]),
    ("001b.4411.3ab7", ["001b.4411.3ab7"]),
    ("MAC 12:34:56:78:90:12", ["12:34:56:78:90:12"]),
]
LEFT = [
    "10.1.2.3 192.168.100.200 172.16.254.1 127.0.0.1 169.254.10.10 203.0.113.195 224.0.0.251 255.255.255.0",
    "fe80::1 ::1 2001:db8::1 fd12:3456:789a::1 ff02::1:2:3",
    "256.184.216.34 and 1.2.3.4.5.6 and 093.184.216.34",
    "version 2.10.7.1, section 1.2.3.4, release 10.4.0.1, v93.184.216.34, linux-5.15.120.100",
    "Chrome/96.0.114.110 foo_1.22.33.144-1",
    "std::vector<int>::iterator at 12:34:56, Face::add::bad",
    "8.8.8.8 is short",
    "00:11:22:33:44:55 ff:ff:ff:ff:ff:ff 01:00:5e:00:00:fb 12:34:56:78:90:12 00:00:00:00:00:00",
    "16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48",
    "12-34-56-78-90-12 1234.5678.9012",
]


def finds(text: str) -> list[str]:
    return [text[slice(*span)] for span in [*find_ips(text, "public"), *find_macs(text)]]


@pytest.mark.parametrize(("text", "found"), FOUND)
def test_what_is_one_is_found(text: str, found: list[str]) -> None:
    assert finds(text) == found


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_one_is_left(text: str) -> None:
    assert finds(text) == []
