"""What a path may be, and how it splits."""

from __future__ import annotations

import pytest

from coordsvc.errors import BadArgumentsError
from coordsvc.paths import (
    PATH_BYTES_MAX,
    ancestors_of,
    is_at_or_below,
    join,
    name_of,
    parent_of,
    path_fault,
    shown,
    validate_path,
)


@pytest.mark.parametrize(
    "path",
    ["/", "/a", "/a/b", "/...", "/.a", "/a.", "/a/..b", "/ ", "/\x20\x7e", "/\xa0", "/\u00e9"]
    + ["/\ud7ff", "/\ue000", "/\uf8ff", "/\uffef", "/\U00010000", "/\U0010ffff", "/*?#%"],
)
def test_legal(path: str) -> None:
    assert path_fault(path) is None
    validate_path(path)


@pytest.mark.parametrize(
    "path",
    ["", "a", "a/b", "/a/", "//", "//a", "/a//b", "/.", "/..", "/a/.", "/a/../b", "/./a", " /a"]
    + [f"/a{chr(code)}b" for code in (0, 1, 0x1F, 0x7F, 0x80, 0x9F, 0xFFF0, 0xFFFD, 0xFFFF)]
    + ["/\ud800", "/\udfff"],
)
def test_malformed(path: str) -> None:
    with pytest.raises(BadArgumentsError) as refused:
        validate_path(path)
    assert refused.value.path == path
    assert str(refused.value).isascii(), "a message shows no raw control characters"


@pytest.mark.parametrize("character", ["x", "é", "\u20ac", "\U0001f600"])
def test_limit_is_in_bytes(character: str) -> None:
    size = len(character.encode())
    fits = "/" + character * ((PATH_BYTES_MAX - 1) // size)
    assert path_fault(fits) is None
    assert path_fault(fits + character) is not None


def test_splitting() -> None:
    assert (parent_of("/"), name_of("/")) == ("/", "")
    assert (parent_of("/a"), name_of("/a")) == ("/", "a")
    assert (parent_of("/a/b"), name_of("/a/b")) == ("/a", "b")
    assert [join("/", "a"), join("/a", "b")] == ["/a", "/a/b"]
    assert list(ancestors_of("/a/b/c")) == ["/a/b/c", "/a/b", "/a", "/"]
    assert list(ancestors_of("/")) == ["/"]


def test_at_or_below_is_by_component() -> None:
    assert is_at_or_below("/a", "/a")
    assert is_at_or_below("/a/b", "/a")
    assert is_at_or_below("/a", "/")
    assert not is_at_or_below("/ab", "/a")
    assert not is_at_or_below("/", "/a")


def test_shown_is_short_and_printable() -> None:
    assert shown("/a") == "'/a'"
    assert shown("/é\x00\ud800") == r"'/é\u0000\ud800'"
    assert len(shown("/" + "\x00" * 5000)) < 800
