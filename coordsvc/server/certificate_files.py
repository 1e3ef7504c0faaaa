"""Certificates in files that are replaced while they are in use: read, checked, watched.

An operator replaces a certificate and its key one after the other, and a program may write them in
pieces. So what is in the files is taken over only when it is whole and fits together; until then
what was there before stays in use, and the log says why. A thread looks once a second: neither the
loop nor a handshake waits for a file system.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from coordsvc.server.x509 import Certificate, CertificateError, read_pem

logger = logging.getLogger(__name__)

CHECK_S = 1.0
READ_ATTEMPTS = 3
"""How often files that change while they are read are read again at once."""

FILE_BYTES_MAX = 1024 * 1024
"""Above every bundle of authorities; below what a wrong path (a disk, a log) would cost."""


class CertificateFilesError(Exception):
    """The files cannot be used. The message names the option and the file, and says why."""

    def __init__(self, option: str, file_path: str, reason: str) -> None:
        super().__init__(f"{option} {file_path}: {reason}")


@dataclass(frozen=True)
class CertificateFiles:
    """File paths, and the options they were given with. `authority` may be empty: nobody is asked
    for a certificate."""

    purpose: str
    """For the log: clients, peers."""
    certificate: str
    key: str
    authority: str
    options: tuple[str, str, str]
    """Of the three, in this order."""

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(path for path in (self.certificate, self.key, self.authority) if path)


@dataclass(frozen=True)
class Loaded:
    """What the files held, checked. All in PEM; `authority` is empty when there is none."""

    certificate: bytes
    key: bytes
    authority: bytes
    own: Certificate
    authorities: tuple[Certificate, ...]


def load(files: CertificateFiles) -> Loaded:
    """Read and check them. Blocks. Raises CertificateFilesError: unreadable, cut off, not what it
    should be, or the key is another certificate's."""
    for _ in range(READ_ATTEMPTS):
        contents = _read_all(files)
        loaded = _check(files, contents)
        # The library checks files, not bytes. If they are still the same, it checked these bytes.
        if _read_all(files) == contents:
            return loaded
    raise CertificateFilesError(files.options[0], files.certificate, "it changes all the time")


def _read_all(files: CertificateFiles) -> tuple[bytes, bytes, bytes]:
    certificate, key, authority = (
        _read(option, path) if path else b""
        for option, path in zip(
            files.options, (files.certificate, files.key, files.authority), strict=True
        )
    )
    return certificate, key, authority


def _read(option: str, file_path: str) -> bytes:
    try:
        with open(file_path, "rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        raise CertificateFilesError(option, file_path, reason) from error
    if len(content) > FILE_BYTES_MAX:
        raise CertificateFilesError(option, file_path, f"it has more than {FILE_BYTES_MAX} bytes")
    return content


def _check(files: CertificateFiles, contents: tuple[bytes, bytes, bytes]) -> Loaded:
    certificate, key, authority = contents
    certificate_option, key_option, authority_option = files.options
    own = _certificates(certificate_option, files.certificate, certificate)[0]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = f"cannot be used with the certificate {files.certificate}: {_reason(error)}"
        raise CertificateFilesError(key_option, files.key, reason) from error
    authorities: tuple[Certificate, ...] = ()
    if files.authority:
        authorities = _certificates(authority_option, files.authority, authority)
        try:
            context.load_verify_locations(files.authority)
        except (ssl.SSLError, OSError) as error:
            raise CertificateFilesError(
                authority_option, files.authority, _reason(error)
            ) from error
    return Loaded(certificate, key, authority, own, authorities)


def _certificates(option: str, file_path: str, content: bytes) -> tuple[Certificate, ...]:
    try:
        return read_pem(content)
    except CertificateError as error:
        raise CertificateFilesError(option, file_path, str(error)) from error


def _no_password() -> str:
    """The library would ask at the terminal."""
    raise ValueError("the key is encrypted; a replica starts without anybody to ask")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(error)


# ---------------------------------------------------------------------------------------- watching


class CertificateWatch:
    """Loads the files, and again when they have changed. `take` gets what is to be used from then
    on: first in the constructor, later in the watching thread. It may refuse by raising
    CertificateFilesError.

    Raises CertificateFilesError when they cannot be used from the start.
    """

    def __init__(
        self,
        files: CertificateFiles,
        take: Callable[[Loaded], None],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._files = files
        self._take = take
        self._now = now
        self._signature = _signature(files)
        self._fault = ""
        self._expired: frozenset[Certificate] = frozenset()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.loaded = load(files)
        take(self.loaded)
        self._log_loaded()
        self._note_dates()

    def start(self) -> None:
        """A thread that does not keep the process alive: a file system that hangs must not."""
        name = f"certificates-{self._files.purpose}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Does not wait for the thread."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(CHECK_S):
            try:
                self.check()
            except Exception:
                # What is in use stays; without this thread nobody would learn that it has stopped.
                logger.exception("tls.check_failed", extra={"purpose": self._files.purpose})

    def check(self) -> None:
        """Take over what is new and whole. Blocks; never called twice at a time."""
        signature = _signature(self._files)
        # While something is wrong the files are read each time: the fault may be one that no
        # signature shows, such as a rewrite within the clock's grain.
        if signature != self._signature or self._fault:
            self._reload(signature)
        self._note_dates()

    def _reload(self, signature: tuple[object, ...]) -> None:
        try:
            loaded = load(self._files)
            if loaded != self.loaded:
                self._take(loaded)
        except CertificateFilesError as error:
            if str(error) != self._fault:
                self._fault = str(error)
                logger.warning(
                    "tls.not_loaded", extra={"purpose": self._files.purpose, "error": self._fault}
                )
            return
        is_new, self.loaded = loaded != self.loaded, loaded
        self._signature, self._fault = signature, ""
        if is_new:
            self._log_loaded()

    def _log_loaded(self) -> None:
        own = self.loaded.own
        logger.info(
            "tls.loaded",
            extra={
                "purpose": self._files.purpose,
                "subject": own.subject,
                "valid_until": own.valid_until.isoformat(),
                "authorities": len(self.loaded.authorities),
            },
        )

    def _note_dates(self) -> None:
        """Once for each certificate that is out of its time."""
        now = self._now()
        wrong = [
            (option, path, certificate)
            for option, path, certificate in self._all()
            if not certificate.valid_from <= now <= certificate.valid_until
        ]
        for option, path, certificate in wrong:
            if certificate not in self._expired:
                logger.error(
                    "tls.expired",
                    extra={
                        "purpose": self._files.purpose,
                        "option": option,
                        "file": path,
                        "subject": certificate.subject,
                        "valid_from": certificate.valid_from.isoformat(),
                        "valid_until": certificate.valid_until.isoformat(),
                    },
                )
        self._expired = frozenset(certificate for _, _, certificate in wrong)

    def _all(self) -> Iterator[tuple[str, str, Certificate]]:
        yield self._files.options[0], self._files.certificate, self.loaded.own
        for certificate in self.loaded.authorities:
            yield self._files.options[2], self._files.authority, certificate


def _signature(files: CertificateFiles) -> tuple[object, ...]:
    """Changes when a file is rewritten or replaced, or what a link leads to."""
    return tuple(_file_signature(path) for path in files.paths)


def _file_signature(file_path: str) -> object:
    try:
        status = os.stat(file_path)
    except OSError as error:
        return error.errno
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
