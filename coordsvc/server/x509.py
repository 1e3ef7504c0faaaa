"""What a certificate says of itself: its subject, its dates, what kind of key it is for.

Reads just those fields of a certificate (RFC 5280, DER); whether it can be trusted is decided by
the TLS library before anybody asks here. A subject is written as ZooKeeper's X509 authentication
provider writes it, so that ACLs mean the same: RFC 2253 with the attribute names of that document
alone, as Java's X500Principal.getName() does it.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

_PEM_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----\s(.*?)-----END CERTIFICATE-----", re.DOTALL)

_SEQUENCE, _SET, _OBJECT_ID, _EXPLICIT_0 = 0x30, 0x31, 0x06, 0xA0
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_UTF8_STRING, _PRINTABLE_STRING, _IA5_STRING = 0x0C, 0x13, 0x16
_TEXT_TAGS = (_UTF8_STRING, _PRINTABLE_STRING, _IA5_STRING)

_ATTRIBUTE_NAMES = {
    "2.5.4.3": "CN",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.6": "C",
    "2.5.4.9": "STREET",
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.1": "UID",
}
"""Ref: RFC 2253, 2.3. Attributes of other types are written as numbers and hexadecimal."""

_EC_KEY = "1.2.840.10045.2.1"
_KEY_KINDS = {
    "1.2.840.113549.1.1.1": "RSA",
    "1.2.840.10045.3.1.7": "P-256",
    "1.3.132.0.34": "P-384",
    "1.3.132.0.35": "P-521",
    "1.3.101.112": "Ed25519",
}

_ESCAPED = frozenset(',=+<>#;"\\')


class CertificateError(Exception):
    """What should be a certificate cannot be read as one."""


@dataclass(frozen=True)
class Certificate:
    """`subject` is empty for a certificate that names nobody."""

    subject: str
    valid_from: datetime
    valid_until: datetime
    key_kind: str
    """RSA, P-256, P-384, P-521, Ed25519, or an object identifier."""


def read_pem(text: bytes) -> tuple[Certificate, ...]:
    """The certificates of a PEM file, in its order. Raises CertificateError: there is none, one is
    cut off, or one cannot be read."""
    if text.count(b"-----BEGIN CERTIFICATE-----") != text.count(b"-----END CERTIFICATE-----"):
        raise CertificateError("a certificate is cut off")
    found = tuple(read_der(_decoded(block)) for block in _PEM_BLOCK.findall(text))
    if not found:
        raise CertificateError("there is no certificate in it")
    return found


def _decoded(block: bytes) -> bytes:
    try:
        return b64decode(b"".join(block.split()), validate=True)
    except binascii.Error as error:
        raise CertificateError(f"a certificate is not base64: {error}") from error


def read_der(data: bytes) -> Certificate:
    """Raises CertificateError."""
    certificate = _first(data).expect(_SEQUENCE)
    fields = _fields(_first(certificate).expect(_SEQUENCE))
    # tbsCertificate: [0] version, serialNumber, signature, issuer, validity, subject, key, ...
    if fields and fields[0].tag == _EXPLICIT_0:
        fields = fields[1:]
    if len(fields) < 6:
        raise CertificateError("the certificate lacks fields")
    validity, subject, key = fields[3], fields[4], fields[5]
    times = [_time(field) for field in _fields(validity.expect(_SEQUENCE))]
    if len(times) != 2:
        raise CertificateError("the certificate has no two dates")
    return Certificate(
        subject=_name(subject.expect(_SEQUENCE)),
        valid_from=times[0],
        valid_until=times[1],
        key_kind=_key_kind(key.expect(_SEQUENCE)),
    )


def _key_kind(value: bytes) -> str:
    algorithm = _fields(_first(value).expect(_SEQUENCE))
    kind = _object_id(algorithm[0].expect(_OBJECT_ID)) if algorithm else ""
    if kind == _EC_KEY and len(algorithm) == 2 and algorithm[1].tag == _OBJECT_ID:
        kind = _object_id(algorithm[1].value)
    return _KEY_KINDS.get(kind, kind)


# -------------------------------------------------------------------------------------------- DER


class _Field(NamedTuple):
    tag: int
    value: bytes
    encoded: bytes
    """With tag and length."""

    def expect(self, tag: int) -> bytes:
        if self.tag != tag:
            raise CertificateError(f"tag {self.tag:#x} where {tag:#x} should be")
        return self.value


def _first(data: bytes) -> _Field:
    for field in _iterate(data):
        return field
    raise CertificateError("a field is empty")


def _fields(data: bytes) -> list[_Field]:
    return list(_iterate(data))


def _iterate(data: bytes) -> Iterator[_Field]:
    position = 0
    while position < len(data):
        start = position
        head = data[position : position + 2]
        if len(head) < 2 or head[0] & 0x1F == 0x1F:
            raise CertificateError("an encoding is cut off, or of an unknown form")
        length, position = head[1], position + 2
        if length >= 0x80:
            count = length & 0x7F
            if not 1 <= count <= 4:
                raise CertificateError("a length is not one of DER")
            length = int.from_bytes(data[position : position + count], "big")
            position += count
        if position + length > len(data):
            raise CertificateError("an encoding is cut off")
        end = position + length
        yield _Field(head[0], data[position:end], data[start:end])
        position = end


def _object_id(value: bytes) -> str:
    """`1.2.840...`"""
    numbers, number = [], 0
    for byte in value:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    if not numbers or value[-1] & 0x80:
        raise CertificateError("an object identifier is cut off")
    top = min(numbers[0] // 40, 2)
    return ".".join(map(str, (top, numbers[0] - 40 * top, *numbers[1:])))


def _time(field: _Field) -> datetime:
    """Ref: RFC 5280, 4.1.2.5: always with seconds, always UTC; two digits of a year are of 1950 to
    2049, which is not what strptime takes them for."""
    text = field.value.decode("ascii", "replace")
    if field.tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    elif field.tag != _GENERALIZED_TIME:
        raise CertificateError("a date is of an unknown form")
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise CertificateError(f"{text!r} is no date") from error


# ------------------------------------------------------------------------------------- RFC 2253


def _name(value: bytes) -> str:
    """A distinguished name: the last of the sequence first."""
    parts = [_name_part(field.expect(_SET)) for field in _fields(value)]
    return ",".join(reversed(parts))


def _name_part(value: bytes) -> str:
    return "+".join(_attribute(field.expect(_SEQUENCE)) for field in _fields(value))


def _attribute(value: bytes) -> str:
    fields = _fields(value)
    if len(fields) != 2:
        raise CertificateError("an attribute of the subject is no pair")
    kind, field = _object_id(fields[0].expect(_OBJECT_ID)), fields[1]
    name, text = _ATTRIBUTE_NAMES.get(kind), _text(field)
    if name is None or text is None:
        return f"{name or kind}=#{field.encoded.hex()}"
    return f"{name}={_escape(text)}"


def _text(field: _Field) -> str | None:
    """None: it cannot be told which characters are meant. (Java guesses in some old encodings; two
    different subjects must never look the same.)"""
    if field.tag not in _TEXT_TAGS:
        return None
    try:
        return field.value.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _escape(text: str) -> str:
    """Ref: RFC 2253, 2.4; more is escaped than is asked for there, as Java does."""
    pieces = [f"\\{char}" if char in _ESCAPED else char for char in text]
    pieces = ["\\00" if char == "\0" else char for char in pieces]
    lead = len(text) - len(text.lstrip(" \r"))
    trail = len(text.rstrip(" \r"))
    return "".join(
        f"\\{piece}" if index < lead or index >= trail else piece
        for index, piece in enumerate(pieces)
    )
