"""Files that change while they are in use: only what is whole is taken over."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coordsvc.server import certificate_files
from coordsvc.server.certificate_files import (
    CertificateFiles,
    CertificateFilesError,
    CertificateWatch,
    Loaded,
    load,
)
from coordsvc.testing.certificates import Authority, Pair, replace_file
from tests.unit.server.harness import eventually

OPTIONS = ("--cert", "--key", "--ca")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path, "ca")


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("server")


@pytest.fixture
def files(authority: Authority, pair: Pair) -> CertificateFiles:
    return CertificateFiles(
        "clients", str(pair.certificate), str(pair.key), str(authority.certificate), OPTIONS
    )


class Watched:
    """A watch without its thread. `taken`: the subjects taken over, in order."""

    def __init__(self, files: CertificateFiles, now: Callable[[], datetime] | None = None) -> None:
        self.taken: list[str] = []
        self.loaded: Loaded | None = None
        keywords = {"now": now} if now is not None else {}
        self.watch = CertificateWatch(files, self._take, **keywords)

    def _take(self, loaded: Loaded) -> None:
        self.taken.append(loaded.own.subject)
        self.loaded = loaded


# ------------------------------------------------------------------------------- refused at start


def spoilers() -> dict[str, tuple[Callable[[Path], object], str, str]]:
    """What is done to the folder, the option that is named, and a word of the reason."""
    return {
        "no certificate file": (lambda d: (d / "server.pem").unlink(), "--cert", "cannot be read"),
        "no key file": (lambda d: (d / "server.key").unlink(), "--key", "cannot be read"),
        "no authority file": (lambda d: (d / "ca.pem").unlink(), "--ca", "cannot be read"),
        "a folder": (
            lambda d: ((d / "ca.pem").unlink(), (d / "ca.pem").mkdir()),
            "--ca",
            "cannot be read",
        ),
        "no certificate in it": (
            lambda d: (d / "server.pem").write_text("hello"),
            "--cert",
            "no certificate",
        ),
        "no authority in it": (lambda d: (d / "ca.pem").write_text(""), "--ca", "no certificate"),
        "no key in it": (lambda d: (d / "server.key").write_text("hello"), "--key", "server.pem"),
        "another's key": (
            lambda d: (d / "server.key").write_bytes((d / "ca.key").read_bytes()),
            "--key",
            "mismatch",
        ),
        "an encrypted key": (
            lambda d: os.system(
                f"openssl ec -in {d}/server.key -aes128 -passout pass:secret -out {d}/server.key"
                " 2>/dev/null"
            ),
            "--key",
            "encrypted",
        ),
        "a large file": (
            lambda d: (d / "ca.pem").write_bytes(bytes(2 * 1024 * 1024)),
            "--ca",
            "more than",
        ),
    }


@pytest.mark.parametrize("spoiler", spoilers())
def test_files_that_cannot_be_used_are_named_with_their_option(
    files: CertificateFiles, tmp_path: Path, spoiler: str
) -> None:
    load(files)
    spoil, option, reason = spoilers()[spoiler]
    spoil(tmp_path)
    path = dict(zip(OPTIONS, (files.certificate, files.key, files.authority), strict=True))[option]
    with pytest.raises(CertificateFilesError) as caught:
        Watched(files)
    assert str(caught.value).startswith(f"{option} {path}: ")
    assert reason in str(caught.value)


def test_files_that_change_while_they_are_read_are_read_again(
    files: CertificateFiles, monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    """Checked are the bytes that are used, whatever comes between."""
    real, rounds = certificate_files._check, []

    def check(files: CertificateFiles, contents: tuple[bytes, bytes, bytes]) -> Loaded:
        checked = real(files, contents)
        if not rounds:
            authority.issue("server", "/CN=second")
        rounds.append(checked.own.subject)
        return checked

    monkeypatch.setattr(certificate_files, "_check", check)
    assert load(files).own.subject == "CN=second"
    assert rounds == ["CN=server", "CN=second"]


# ------------------------------------------------------------------------------------ taken over


def test_what_is_new_and_whole_is_taken_over_once(
    files: CertificateFiles, authority: Authority
) -> None:
    watched = Watched(files)
    watched.watch.check()
    assert watched.taken == ["CN=server"], "nothing has changed"
    authority.issue("server", "/CN=second")
    watched.watch.check()
    watched.watch.check()
    assert watched.taken == ["CN=server", "CN=second"]


def test_a_new_authority_alone_is_taken_over(files: CertificateFiles, authority: Authority) -> None:
    watched = Watched(files)
    other = Authority.make(authority.directory / "other", "other")
    old = Path(files.authority).read_bytes()
    replace_file(Path(files.authority), old + other.certificate.read_bytes())
    watched.watch.check()
    assert watched.loaded is not None
    assert [each.subject for each in watched.loaded.authorities] == ["CN=ca", "CN=other"]


@pytest.mark.parametrize("first", ["certificate", "key"])
def test_of_two_files_replaced_one_after_the_other_none_is_taken_before_both(
    files: CertificateFiles,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
    first: str,
) -> None:
    watched = Watched(files)
    before = watched.loaded
    fresh = authority.issue("fresh")
    steps = [(fresh.certificate, files.certificate), (fresh.key, files.key)]
    if first == "key":
        steps.reverse()
    (source, target), (last_source, last_target) = steps
    replace_file(Path(target), source.read_bytes())
    for _ in range(3):
        watched.watch.check()
    assert watched.loaded is before
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.message == "tls.not_loaded" and "mismatch" in warning.__dict__["error"]
    replace_file(Path(last_target), last_source.read_bytes())
    watched.watch.check()
    assert watched.taken == ["CN=server", "CN=fresh"]


def test_half_written_files_are_taken_when_they_are_whole(
    files: CertificateFiles, authority: Authority
) -> None:
    """Written in place, in pieces, each file on its own."""
    watched = Watched(files)
    fresh = authority.issue("fresh")
    for source, target in ((fresh.key, files.key), (fresh.certificate, files.certificate)):
        content = source.read_bytes()
        with open(target, "wb", buffering=0) as file:
            for start in range(0, len(content), 100):
                watched.watch.check()
                assert watched.taken == ["CN=server"]
                file.write(content[start : start + 100])
    watched.watch.check()
    assert watched.taken == ["CN=server", "CN=fresh"]


def test_files_that_are_gone_for_a_while_leave_the_old_in_use(
    files: CertificateFiles, authority: Authority
) -> None:
    watched = Watched(files)
    os.unlink(files.certificate)
    watched.watch.check()
    assert watched.taken == ["CN=server"]
    authority.issue("server", "/CN=second")
    watched.watch.check()
    assert watched.taken[-1] == "CN=second"


def test_a_link_that_leads_elsewhere_counts_as_a_change(
    authority: Authority, tmp_path: Path
) -> None:
    """As Kubernetes replaces a secret: the files are links through a folder that is a link."""
    for name in ("one", "two"):
        pair = authority.issue(name)
        (tmp_path / f"dir-{name}").mkdir()
        pair.certificate.rename(tmp_path / f"dir-{name}" / "tls.crt")
        pair.key.rename(tmp_path / f"dir-{name}" / "tls.key")
    current = tmp_path / "current"
    current.symlink_to("dir-one")
    watched = Watched(
        CertificateFiles("clients", f"{current}/tls.crt", f"{current}/tls.key", "", OPTIONS)
    )
    (tmp_path / "next").symlink_to("dir-two")
    os.replace(tmp_path / "next", current)
    watched.watch.check()
    assert watched.taken == ["CN=one", "CN=two"]


async def test_the_thread_finds_a_change(
    files: CertificateFiles, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate_files, "CHECK_S", 0.01)
    watched = Watched(files)
    watched.watch.start()
    try:
        authority.issue("server", "/CN=second")
        await eventually(lambda: watched.taken == ["CN=server", "CN=second"])
    finally:
        watched.watch.stop()


# ----------------------------------------------------------------------------------------- dates


def test_a_certificate_out_of_its_time_is_logged_once_with_the_date(
    files: CertificateFiles, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    now = datetime.now(UTC)
    watched = Watched(files, lambda: now)
    assert not caplog.records or "tls.expired" not in caplog.messages
    assert watched.loaded is not None
    now = watched.loaded.own.valid_until + timedelta(seconds=1)
    watched.watch.check()
    watched.watch.check()
    (expired,) = [record for record in caplog.records if record.message == "tls.expired"]
    assert expired.levelno == logging.ERROR
    assert expired.__dict__["valid_until"] == watched.loaded.own.valid_until.isoformat()
    assert expired.__dict__["file"] == files.certificate


def test_an_authority_that_has_expired_is_logged_at_the_start(
    files: CertificateFiles, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    far = datetime.now(UTC) + timedelta(days=31)
    Watched(files, lambda: far)
    named = {r.__dict__["option"] for r in caplog.records if r.message == "tls.expired"}
    assert named == {"--cert", "--ca"}
