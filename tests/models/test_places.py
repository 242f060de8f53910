"""Where addresses are, by the registries' data and by a city database made here."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.places import Place, Places

AMSTERDAM = {"city": {"names": {"en": "Amsterdam", "ru": "Амстердам"}}, "country": {"iso_code": "NL"}}


def pack(kind: int, value: bytes, size: int | None = None) -> bytes:
    """A field of the MaxMind DB format: its kind and size, then itself."""
    size = len(value) if size is None else size
    small, more = (size, b"") if size < 29 else (29, bytes([size - 29]))
    return (bytes([small, kind - 7]) if kind > 7 else bytes([kind << 5 | small])) + more + value


def pack_any(value: Any, kind: int = 6) -> bytes:
    """A text, whole number (of kind 5, 6 or 9: 16, 32 or 64 bits), list or mapping."""
    if isinstance(value, str):
        return pack(2, value.encode())
    if isinstance(value, int):
        return pack(kind, value.to_bytes({5: 2, 6: 4, 9: 8}[kind]))
    if isinstance(value, list):
        return pack(11, b"".join(map(pack_any, value)), len(value))
    return pack(7, b"".join(pack_any(key) + pack_any(each) for key, each in value.items()), len(value))


def pack_database(records: dict[str, Any], version: int = 6) -> bytes:
    """An .mmdb file (https://maxmind.github.io/MaxMind-DB/) that holds a record for each network."""
    nodes: list[list[int | None]] = [[None, None]]
    leaves: dict[tuple[int, int], int] = {}
    data = b""
    for name, record in records.items():
        network = ipaddress.ip_network(name)
        bits = f"{int(network.network_address):0{network.max_prefixlen}b}"[: network.prefixlen]
        if network.version < version:
            bits = "0" * 96 + bits
        node = 0
        for bit in map(int, bits[:-1]):
            following = nodes[node][bit]
            if following is None:
                nodes.append([None, None])
                following = nodes[node][bit] = len(nodes) - 1
            node = following
        leaves[node, int(bits[-1])] = len(data)
        data += pack_any(record)

    def point(node: int, side: int) -> bytes:
        if (node, side) in leaves:
            return (len(nodes) + 16 + leaves[node, side]).to_bytes(4)
        following = nodes[node][side]
        return (len(nodes) if following is None else following).to_bytes(4)

    numbers = {"node_count": (len(nodes), 6), "record_size": (32, 5), "ip_version": (version, 5)}
    numbers |= {"binary_format_major_version": (2, 5), "binary_format_minor_version": (0, 5), "build_epoch": (1, 9)}
    texts = {"database_type": "Test-City", "languages": ["en"], "description": {"en": "Made by a test"}}
    fields = [pack_any(key) + pack_any(*value) for key, value in numbers.items()]
    fields += [pack_any(key) + pack_any(value) for key, value in texts.items()]
    tree = b"".join(point(node, side) for node in range(len(nodes)) for side in (0, 1))
    return tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + pack(7, b"".join(fields), len(fields))


def make_database(folder: Path, records: dict[str, Any], version: int = 6) -> Path:
    """The file of `pack_database`."""
    path = folder / "cities.mmdb"
    path.write_bytes(pack_database(records, version))
    return path


@pytest.mark.parametrize(
    ("ip", "country"),
    [
        ("8.8.8.8", "US"),
        ("2001:4860:4860::8888", "US"),
        ("77.88.8.8", "RU"),
        ("2a02:6b8::feed:ff", "RU"),
        ("2A02:06B8:0:0:0:0:FEED:00FF", "RU"),
        ("::ffff:77.88.8.8", "RU"),
        ("::ffff:4d58:808", "RU"),
        ("114.114.114.114", "CN"),
        ("133.11.0.1", "JP"),
        ("168.126.63.1", "KR"),
        ("193.0.6.139", "NL"),
        ("196.216.2.6", "ZA"),
        ("200.160.0.8", "BR"),
        ("212.58.244.20", "GB"),
    ],
)
def test_a_well_known_address_is_in_its_country(ip: str, country: str) -> None:
    assert Places().locate(ip) == Place(country, "")


PRIVATE = [
    *("10.0.0.1", "172.16.5.4", "192.168.1.1", "100.64.0.1", "127.0.0.1", "169.254.1.1", "0.0.0.0", "255.255.255.255"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fd12:3456::1", "2001:db8::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1"),
]
NO_ADDRESSES = [
    *("", " ", "unknown", "8.8.8", "8.8.8.8 ", "8.8.8.8:443", "[2a02:6b8::1]", "8.8.8.8, 10.0.0.1", "008.8.8.8"),
    *("256.1.1.1", "134744072", "é", "\0", "\ud800", "1" * 10_000, "::ffff:8.8.8.8.8", "2a02::6b8::1", "/run/x.sock"),
]


@pytest.mark.parametrize("ip", [*PRIVATE, *NO_ADDRESSES])
def test_what_is_no_public_address_is_nowhere(ip: str, tmp_path: Path) -> None:
    everywhere = make_database(tmp_path, {"::/1": AMSTERDAM, "8000::/1": AMSTERDAM})
    assert Places().locate(ip) == Places(everywhere).locate(ip) == Place("", "")


@given(st.text() | st.ip_addresses().map(str))
def test_any_text_gives_a_country_code_or_nothing(ip: str) -> None:
    place = Places().locate(ip)
    assert re.fullmatch(r"([A-Z]{2})?", place.country)
    assert place.city == ""


def test_an_address_of_europe_at_large_has_no_country() -> None:
    """The registries' code for it, EU, is no country's."""
    addresses = ("139.191.87.111", "145.218.1.91", "151.175.187.103", "158.67.228.3")
    assert "EU" not in {Places().locate(ip).country for ip in addresses}


@pytest.mark.parametrize("ip", ["77.88.8.8", "::ffff:77.88.8.8", "2a02:6b8::feed:ff"])
def test_the_city_database_gives_the_city_and_its_country(ip: str, tmp_path: Path) -> None:
    places = Places(make_database(tmp_path, {"77.88.8.0/24": AMSTERDAM, "2a02:6b8::/32": AMSTERDAM}))
    assert places.locate(ip) == Place("NL", "Amsterdam")
    assert places.locate("8.8.8.8") == Place("US", "")


def test_a_database_of_ipv4_alone_leaves_ipv6_its_country(tmp_path: Path) -> None:
    places = Places(make_database(tmp_path, {"77.88.8.0/24": AMSTERDAM}, version=4))
    assert places.locate("77.88.8.8") == Place("NL", "Amsterdam")
    assert places.locate("2a02:6b8::feed:ff") == Place("RU", "")


@pytest.mark.parametrize(
    ("record", "place"),
    [
        ({}, Place("RU", "")),
        ("Amsterdam", Place("RU", "")),
        ({"city": "Amsterdam", "country": "NL"}, Place("RU", "")),
        ({"city": {"names": {"ru": "Амстердам"}}, "country": {"iso_code": 31}}, Place("RU", "")),
        ({"country": {"iso_code": "NL"}}, Place("NL", "")),
        ({"city": {"names": {"en": "Amsterdam"}}}, Place("RU", "Amsterdam")),
    ],
)
def test_a_record_that_says_less_is_read_as_far_as_it_goes(record: Any, place: Place, tmp_path: Path) -> None:
    assert Places(make_database(tmp_path, {"77.88.8.0/24": record})).locate("77.88.8.8") == place


def test_a_closed_place_finder_still_knows_countries(tmp_path: Path) -> None:
    places = Places(make_database(tmp_path, {"77.88.8.0/24": AMSTERDAM}))
    places.close()
    places.close()
    assert places.locate("77.88.8.8") == Place("RU", "")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent.mmdb"
    with pytest.raises(ValueError, match=rf"^The city database {re.escape(str(path))} can't be read: No such file"):
        Places(path)


def test_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^The city database {re.escape(str(tmp_path))} "):
        Places(tmp_path)


WHOLE = pack_database({"77.88.8.0/24": AMSTERDAM})


@pytest.mark.parametrize("content", [b"", b"\0", b"<html>Not found</html>", WHOLE[:900], WHOLE[-60:]])
def test_a_file_that_is_no_database_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cities.mmdb"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^The city database {re.escape(str(path))} is damaged or is no MaxMind"):
        Places(path)


@given(st.data())
def test_a_database_damaged_inside_costs_the_city_and_no_more(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(WHOLE) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "cities.mmdb"
    path.write_bytes(damaged)
    with contextlib.suppress(ValueError):  # damaged where the file is opened
        places = Places(path)
        assert isinstance(places.locate("77.88.8.8"), Place)
        places.close()


@pytest.mark.parametrize(
    ("ip", "city", "language", "told"),
    [
        ("1.1.1.1", "Amsterdam", "ru", "Амстердам"),
        ("::ffff:1.1.1.1", "Amsterdam", "ru", "Амстердам"),
        ("1.1.1.1", "Amsterdam", "en", "Amsterdam"),
        ("1.1.1.1", "Amsterdam", "xx", "Amsterdam"),
        ("1.1.1.1", "Utrecht", "ru", "Utrecht"),
        ("8.8.8.8", "Amsterdam", "ru", "Amsterdam"),
        ("nowhere", "Amsterdam", "ru", "Amsterdam"),
        ("1.1.1.1", "", "ru", ""),
    ],
)
def test_a_city_is_told_in_the_language_where_the_database_still_has_it(
    tmp_path: Path, ip: str, city: str, language: str, told: str
) -> None:
    with contextlib.closing(Places(make_database(tmp_path, {"1.1.1.0/24": AMSTERDAM}))) as places:
        assert places.name_city(ip, city, language) == told
    assert Places().name_city(ip, city, language) == city
