"""HTTP for machines: alive, ready, and what a stranger can take of it. Metrics: test_metrics.py."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import pytest

from coordsvc.server import admin
from coordsvc.server.addresses import Address
from coordsvc.server.admin import Admin
from coordsvc.server.health import NOT_LOADED, Check
from coordsvc.server.listening import bind
from coordsvc.server.zookeeper.monitoring import Monitored
from tests.unit.server.zookeeper.monitoring_harness import monitored


class Page:
    """An admin port; `dead`, `checks` and `monitored` are what it is told."""

    def __init__(self) -> None:
        self.dead = ""
        self.checks: Sequence[Check] = NOT_LOADED
        self.monitored: Monitored | None = None
        self.admin = Admin(
            lambda: b"the metrics\n",
            lambda: self.dead,
            lambda: self.checks,
            lambda: self.monitored,
        )
        self.listener = bind(Address("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]

    async def get_json(self, path: str) -> tuple[int, dict[str, Any]]:
        url = f"http://127.0.0.1:{self.port}{path}"
        async with aiohttp.ClientSession() as client, client.get(url) as answer:
            return answer.status, await answer.json()  # It must be called JSON, too.

    async def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.port}{path}"
        async with aiohttp.ClientSession() as client, client.request(method, url) as answer:
            return answer.status, await answer.text()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    page = Page()
    await page.admin.start(page.listener)
    try:
        yield page
    finally:
        await page.admin.stop()


async def test_while_loading_it_is_alive_and_not_ready(page: Page) -> None:
    assert await page.get("/livez") == (200, "ok\n")
    status, text = await page.get("/readyz")
    assert status == 503 and text.startswith("[-] loaded: ") and text.endswith("not ready\n")
    assert await page.get("/metrics") == (200, "the metrics\n")


async def test_it_is_ready_when_every_check_is_well(page: Page) -> None:
    page.checks = (Check("loaded"), Check("disk writable"))
    assert await page.get("/readyz") == (200, "ok\n")
    assert await page.get("/readyz?verbose") == (200, "[+] loaded\n[+] disk writable\nok\n")


async def test_one_check_that_fails_is_enough_and_is_named(page: Page) -> None:
    page.checks = (Check("loaded"), Check("disk writable", "no room"))
    assert await page.get("/readyz") == (503, "[-] disk writable: no room\nnot ready\n")
    status, text = await page.get("/readyz?verbose")
    assert status == 503
    assert text == "[+] loaded\n[-] disk writable: no room\nnot ready\n"


async def test_dead_is_told_with_its_reason_whatever_ready_says(page: Page) -> None:
    page.dead = "the loop last turned 12.0 s ago"
    page.checks = (Check("loaded"),)
    assert await page.get("/livez") == (503, "the loop last turned 12.0 s ago\n")
    assert (await page.get("/readyz"))[0] == 200


async def test_nothing_else_is_there_and_nothing_can_be_changed(page: Page) -> None:
    status, text = await page.get("/")
    assert status == 404 and "/metrics, /livez, /readyz, /commands\n" in text
    assert await page.get("/commandsx") == (404, text)
    assert (await page.get("/metrics", "POST"))[0] == 405
    assert (await page.get("/commands/ruok", "POST"))[0] == 405
    assert (await page.get("/livez", "HEAD"))[0] == 200


async def test_commands_are_unavailable_until_the_data_is_loaded(page: Page) -> None:
    status, content = await page.get_json("/commands/ruok")
    assert status == 503 and content["command"] == "ruok" and content["error"]
    async with monitored() as scene:
        page.monitored = scene.about
        expected = (200, {"command": "ruok", "error": None})
        assert await page.get_json("/commands/ruok") == expected


async def test_commands_are_listed_and_found_by_all_their_names(page: Page) -> None:
    async with monitored() as scene:
        page.monitored = scene.about
        for path in ("/commands", "/commands/"):
            status, content = await page.get_json(path)
            assert status == 200 and "monitor" in content["commands"]
        for name in ("monitor", "mntr"):
            status, content = await page.get_json(f"/commands/{name}?pretty")
            assert status == 200 and content["command"] == "monitor"


async def test_a_command_that_is_not_there_is_not_found_in_json(page: Page) -> None:
    async with monitored() as scene:
        page.monitored = scene.about
        status, content = await page.get_json("/commands/no%20such")
        assert status == 404
        assert content == {"command": "no such", "error": "Unknown command: no such"}


async def test_a_request_that_never_ends_is_cut_off(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However lively its sender is."""
    monkeypatch.setattr(admin, "CONNECTION_SECONDS_MAX", 0.3)
    reader, writer = await page.connect()

    async def trickle() -> None:
        writer.write(b"GET /livez HTTP/1.1\r\n")
        while True:
            writer.write(b"X-Slow: yes\r\n")
            await asyncio.sleep(0.05)

    trickling = asyncio.create_task(trickle())
    async with asyncio.timeout(5):
        try:
            rest = await reader.read()
        except ConnectionResetError:
            rest = b""
    trickling.cancel()
    writer.close()
    assert not rest.startswith(b"HTTP/1.1 200")


async def test_connections_are_bounded_and_the_others_are_closed_at_once(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "CONNECTIONS_MAX", 3)
    held = [await page.connect() for _ in range(3)]
    for _, writer in held:
        # So that they are known to be there: an answer, or the wait for the rest of a request.
        writer.write(b"GET /livez HTTP/1.1\r\n")
    reader, writer = await page.connect()
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    for each in (writer, *(each for _, each in held)):
        each.close()
        await each.wait_closed()
    async with asyncio.timeout(5):
        while True:
            try:
                assert await page.get("/livez") == (200, "ok\n")
                break
            except aiohttp.ClientError:
                await asyncio.sleep(0.01)  # The loop has not seen yet that they are closed.


async def test_each_connection_is_for_one_request(page: Page) -> None:
    reader, writer = await page.connect()
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    assert answer.count(b"HTTP/1.1 200") == 1


def test_two_cannot_listen_on_one_port() -> None:
    first = bind(Address("127.0.0.1", 0))
    try:
        with pytest.raises(OSError) as caught:
            bind(Address("127.0.0.1", first.getsockname()[1]))
        assert caught.value.errno == errno.EADDRINUSE
    finally:
        first.close()
