"""What is read of a certificate, and how its subject is written."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsvc.server.x509 import CertificateError, read_der, read_pem
from coordsvc.testing.certificates import Authority

SUBJECTS = {
    # As openssl takes it: as Java's X500Principal.getName() writes it (compared with JDK 17).
    "/CN=alice": "CN=alice",
    "/C=DE/O=Acme, Inc./OU=a+OU=b/CN=a  #1": "CN=a  \\#1,OU=a+OU=b,O=Acme\\, Inc.,C=DE",
    "/CN=#lead": "CN=\\#lead",
    "/CN= lead and trail ": "CN=\\ lead and trail\\ ",
    '/CN=a=b;c<d>"e"\\\\f': 'CN=a\\=b\\;c\\<d\\>\\"e\\"\\\\f',
    "/DC=com/DC=example/UID=u1/CN=x": "CN=x,UID=u1,DC=example,DC=com",
    "/CN=Jürgen 日本": "CN=Jürgen 日本",
    "/emailAddress=a@b.c/serialNumber=12/CN=z": (
        "CN=z,2.5.4.5=#13023132,1.2.840.113549.1.9.1=#16056140622e63"
    ),
    "/street=Main/L=Town/ST=BY/C=DE/O=x": "O=x,C=DE,ST=BY,L=Town,STREET=Main",
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("x509"), "ca")


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subject_is_written_as_zookeeper_writes_it(authority: Authority, subject: str) -> None:
    pair = authority.issue("subject", subject)
    (certificate,) = read_pem(pair.certificate.read_bytes())
    assert certificate.subject == SUBJECTS[subject]


def test_the_dates_of_this_and_of_the_next_century(authority: Authority) -> None:
    """Until 2049 they are written with two digits of the year, then with four."""
    now = datetime.now(UTC)
    for days in (2, 40_000):
        (read,) = read_pem(authority.issue("dates", days=days).certificate.read_bytes())
        assert abs(read.valid_from - now) < timedelta(minutes=5)
        assert read.valid_until - read.valid_from == timedelta(days=days)


@pytest.mark.parametrize(
    ("key_kind", "expected"),
    [
        (("rsa:2048",), "RSA"),
        (("ec", "-pkeyopt", "ec_paramgen_curve:P-384"), "P-384"),
        (("ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"), "1.3.132.0.10"),
        (("ed25519",), "Ed25519"),
    ],
)
def test_the_kind_of_key(authority: Authority, key_kind: tuple[str, ...], expected: str) -> None:
    pair = authority.issue("kind", key_kind=key_kind)
    assert read_pem(pair.certificate.read_bytes())[0].key_kind == expected


def test_all_certificates_of_a_bundle(authority: Authority) -> None:
    one, two = authority.issue("one"), authority.issue("two")
    bundle = b"notes\n" + one.certificate.read_bytes() + b"# more\n" + two.certificate.read_bytes()
    assert [read.subject for read in read_pem(bundle)] == ["CN=one", "CN=two"]


def test_what_is_cut_off_anywhere_is_refused(authority: Authority) -> None:
    pem = authority.issue("cut").certificate.read_bytes()
    whole = len(pem.rstrip())
    for size in range(whole):
        with pytest.raises(CertificateError):
            read_pem(pem[:size])
    assert read_pem(pem[:whole])


def test_a_bundle_cut_off_in_a_later_certificate_is_refused(authority: Authority) -> None:
    """It would look like a shorter bundle, and shut out those whose authority is missing."""
    pem = authority.issue("cut").certificate.read_bytes()
    for size in range(len(b"-----BEGIN CERTIFICATE-----"), len(pem.rstrip())):
        with pytest.raises(CertificateError):
            read_pem(pem + pem[:size])
    assert len(read_pem(pem + pem)) == 2


@given(data=st.binary(max_size=300))
def test_whatever_the_bytes_only_that_error(data: bytes) -> None:
    try:
        read_der(data)
    except CertificateError:
        return
    raise AssertionError(f"{data!r} is no certificate")


@given(where=st.integers(0, 2000), byte=st.integers(0, 255))
def test_a_certificate_with_a_wrong_byte_gives_only_that_error(
    authority: Authority, where: int, byte: int
) -> None:
    data = bytearray(_der(authority))
    data[where % len(data)] = byte
    try:
        read_der(bytes(data))
    except CertificateError:
        pass  # Or it is in a field that is not read.


def _der(authority: Authority) -> bytes:
    return ssl.PEM_cert_to_DER_cert(authority.certificate.read_text())
