"""The read side: what is shown, to whom, and in what portions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coordsvc.core.commands import (
    ADMIN,
    ALL,
    EPHEMERAL,
    OPEN_ACL,
    READ,
    WRITE,
    Acl,
    AddAuthOp,
    AuthId,
    Caller,
    CreateOp,
    Refusal,
    SetAclOp,
)
from coordsvc.core.queries import (
    Child,
    ChildrenPage,
    effective_ids,
    exists,
    get_acl,
    get_children,
    get_data,
    get_ephemerals,
)
from coordsvc.errors import ErrorCode
from tests.unit.core.harness import Harness

OWNER = (AuthId("digest", "owner:hash"),)
SUPER = (AuthId("super", ""),)


@pytest.fixture
def harness() -> Harness:
    harness = Harness()
    harness.create("/p")
    for name, data in (("c", b"3"), ("a", b"1"), ("b", None)):
        harness.write(CreateOp(f"/p/{name}", data))
    return harness


def restrict(harness: Harness, path: str, permissions: int) -> None:
    """Everything for the owner, `permissions` for the world."""
    acl = (Acl(ALL, "digest", "owner:hash"), Acl(permissions, "world", "anyone"))
    assert not isinstance(harness.result(SetAclOp(path, acl), Caller(ids=SUPER)), Refusal)


def page(found: ChildrenPage | Refusal) -> ChildrenPage:
    assert isinstance(found, ChildrenPage), found
    return found


def names(found: ChildrenPage | Refusal) -> list[str]:
    return [child.name for child in page(found).children]


QUERIES = [exists, get_data, get_acl, get_children]


@pytest.mark.parametrize("query", QUERIES)
def test_malformed_and_missing(harness: Harness, query: Callable[..., Any]) -> None:
    for path in ("", "/a/", "/\0", "p", "/" + "x" * 5000):
        assert query(harness.state, path, ()).code == ErrorCode.BAD_ARGUMENTS
    missing = query(harness.state, "/missing", ())
    assert missing is None if query is exists else missing.code == ErrorCode.NO_NODE


@pytest.mark.parametrize("query", QUERIES)
def test_read_is_needed(harness: Harness, query: Callable[..., Any]) -> None:
    restrict(harness, "/p", ALL & ~READ & ~ADMIN)
    assert query(harness.state, "/p", ()).code == ErrorCode.NO_AUTH
    for ids in (OWNER, SUPER):
        assert not isinstance(query(harness.state, "/p", ids), Refusal)
    restrict(harness, "/p", READ)
    assert not isinstance(query(harness.state, "/p", ()), Refusal)


def test_values(harness: Harness) -> None:
    stat = harness.state.znodes["/p/a"].stat
    assert exists(harness.state, "/p/a", ()) == stat
    assert get_data(harness.state, "/p/a", ()) == (b"1", stat)
    assert get_acl(harness.state, "/p/a", ()) == (OPEN_ACL, stat)


def test_digests_are_shown_to_admins_only(harness: Harness) -> None:
    restrict(harness, "/p", READ)
    acl, _ = get_acl(harness.state, "/p", ())  # type: ignore[misc]
    assert acl[0].id == "owner:x"
    for ids in (OWNER, SUPER):
        acl, _ = get_acl(harness.state, "/p", ids)  # type: ignore[misc]
        assert acl[0].id == "owner:hash"
    restrict(harness, "/p", ADMIN)
    acl, _ = get_acl(harness.state, "/p", ())  # type: ignore[misc]
    assert acl[0].id == "owner:hash", "ADMIN alone is enough"


def test_children(harness: Harness) -> None:
    found = page(get_children(harness.state, "/p", ()))
    assert found.children == (Child("a"), Child("b"), Child("c"))
    assert found.stat == harness.state.znodes["/p"].stat
    assert found.next_page_token == ""
    assert names(get_children(harness.state, "/p/a", ())) == []


def test_children_with_stat_and_data(harness: Harness) -> None:
    stats = {name: harness.state.znodes[f"/p/{name}"].stat for name in "abc"}
    found = page(get_children(harness.state, "/p", (), include_stat=True, include_data=True))
    assert found.children == (
        Child("a", stats["a"], b"1"),
        Child("b", stats["b"], None),
        Child("c", stats["c"], b"3"),
    )
    found = page(get_children(harness.state, "/p", (), include_data=True))
    assert found.children[0] == Child("a", None, b"1")


def test_children_that_may_not_be_read_show_their_name_only(harness: Harness) -> None:
    restrict(harness, "/p/a", ALL & ~READ)
    for ids, shown in (((), False), (OWNER, True)):
        found = page(get_children(harness.state, "/p", ids, include_stat=True, include_data=True))
        first = found.children[0]
        assert first.name == "a"
        assert (first.stat is not None, first.data is not None) == (shown, shown)


@pytest.mark.parametrize("page_size", [1, 2, 3, 4])
def test_pages(harness: Harness, page_size: int) -> None:
    seen: list[str] = []
    token = ""
    for _ in range(4):
        found = page(get_children(harness.state, "/p", (), page_size=page_size, page_token=token))
        assert len(found.children) <= page_size
        seen += names(found)
        token = found.next_page_token
        if not token:
            break
    assert seen == ["a", "b", "c"]


def test_pages_go_on_past_what_changed(harness: Harness) -> None:
    """A token is a name, whether or not it is still there."""
    state = harness.state
    assert names(get_children(state, "/p", (), page_token="aa")) == ["b", "c"]
    assert names(get_children(state, "/p", (), page_token="z")) == []
    assert get_children(state, "/p", (), page_token="b", page_size=1).next_page_token == ""  # type: ignore[union-attr]


def test_page_size_must_not_be_negative(harness: Harness) -> None:
    found = get_children(harness.state, "/p", (), page_size=-1)
    assert isinstance(found, Refusal) and found.code == ErrorCode.BAD_ARGUMENTS


def test_pages_are_bounded_in_bytes() -> None:
    """But have at least one child, however large."""
    harness = Harness()
    for number in range(10):
        harness.write(CreateOp(f"/n{number}", b"x" * 1000))

    def sizes(bytes_max: int) -> list[int]:
        token, pages = "", []
        while not pages or token:
            found = page(
                get_children(
                    harness.state,
                    "/",
                    (),
                    include_data=True,
                    page_token=token,
                    bytes_max=bytes_max,
                )
            )
            pages.append(sum(len(child.data or b"") for child in found.children))
            token = found.next_page_token
        return pages

    assert sizes(10) == [1000] * 10 + [0]
    assert max(sizes(3500)) == 3000
    assert sizes(100_000) == [10_000]


def test_ephemerals() -> None:
    harness = Harness()
    first, second = harness.open_session(), harness.open_session()
    harness.create("/a")
    for path, session_id in (("/ab", first), ("/a/c", first), ("/a/b", first), ("/x", second)):
        harness.write(CreateOp(path, b"", EPHEMERAL), Caller(session_id))
    assert get_ephemerals(harness.state, first) == ("/a/b", "/a/c", "/ab")
    assert get_ephemerals(harness.state, first, "/a") == ("/a/b", "/a/c")
    assert get_ephemerals(harness.state, 999) == ()


def test_effective_ids(harness: Harness) -> None:
    session_id = harness.open_session()
    harness.write(AddAuthOp(OWNER), Caller(session_id))
    ip = (AuthId("ip", "10.0.0.1"),)
    assert effective_ids(harness.state, session_id, ip) == OWNER + ip
    assert effective_ids(harness.state, 0, ip) == ip
    assert effective_ids(harness.state, 999, ()) == ()


def test_queries_write_right_does_not_read(harness: Harness) -> None:
    restrict(harness, "/p/a", WRITE)
    assert isinstance(get_data(harness.state, "/p/a", ()), Refusal)
