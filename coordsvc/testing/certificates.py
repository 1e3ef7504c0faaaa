"""Certificates for tests: authorities, and what they sign. Made by the command `openssl`.

authority = Authority.make(directory, "ca")
server = authority.issue("server")            # server.certificate, server.key: file paths
authority.issue("server")                     # again, over the same files
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OPENSSL_SECONDS = 30.0
P_256 = ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


class CertificatesError(Exception):
    """`openssl` could not do it; with what it said."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, in files."""

    certificate: Path
    key: Path

    def install(self, target: Pair) -> None:
        """Put them where `target` is, as an operator should: each under another name first, then
        renamed. Between the two renames the files do not fit together."""
        for source, destination in (
            (self.certificate, target.certificate),
            (self.key, target.key),
        ):
            replace_file(destination, source.read_bytes())

    @property
    def is_whole(self) -> bool:
        return self.certificate.exists() and self.key.exists()


@dataclass(frozen=True)
class Authority:
    """Signs certificates into `directory`."""

    directory: Path
    pair: Pair

    @classmethod
    def make(cls, directory: Path, name: str) -> Authority:
        directory.mkdir(parents=True, exist_ok=True)
        pair = Pair(directory / f"{name}.pem", directory / f"{name}.key")
        _request(pair, f"/CN={name}", ("-x509", "-days", "30"), pair.certificate)
        return cls(directory, pair)

    @property
    def certificate(self) -> Path:
        return self.pair.certificate

    def issue(
        self,
        name: str,
        subject: str = "",
        *,
        days: int = 2,
        addresses: Sequence[str] = ("IP:127.0.0.1", "DNS:localhost"),
        key_kind: Sequence[str] = P_256,
    ) -> Pair:
        """A new pair `name`.pem and `name`.key. `subject` as openssl takes it, such as
        /O=Example/CN=alice; empty: /CN=`name`. `days` -1: it ended yesterday."""
        pair = Pair(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        request = self.directory / f"{name}.csr"
        extensions = self.directory / f"{name}.ext"
        _request(pair, subject or f"/CN={name}", (), request, key_kind)
        extensions.write_text(f"subjectAltName={','.join(addresses)}\n")
        _openssl(
            *("x509", "-req", "-in", str(request), "-out", str(pair.certificate)),
            *("-CA", str(self.pair.certificate), "-CAkey", str(self.pair.key), "-CAcreateserial"),
            *("-days", str(days), "-extfile", str(extensions)),
        )
        return pair


def replace_file(file_path: Path, content: bytes) -> None:
    """At once: readers see the old content or the new one."""
    fresh = file_path.with_name(f".{file_path.name}.new")
    fresh.write_bytes(content)
    os.replace(fresh, file_path)


def _request(
    pair: Pair,
    subject: str,
    more: Sequence[str],
    output: Path,
    key_kind: Sequence[str] = P_256,
) -> None:
    _openssl(
        *("req", *more, "-newkey", *key_kind, "-nodes", "-utf8", "-multivalue-rdn"),
        *("-keyout", str(pair.key), "-out", str(output), "-subj", subject),
    )


def _openssl(*arguments: str) -> None:
    try:
        subprocess.run(
            ("openssl", *arguments), check=True, capture_output=True, timeout=OPENSSL_SECONDS
        )
    except FileNotFoundError as error:
        raise CertificatesError("openssl is not installed") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace")
        raise CertificatesError(f"openssl {arguments[0]}: {said}") from error
