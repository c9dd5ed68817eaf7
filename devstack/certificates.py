"""
Certificates of the links between regions (X.509, RFC 5280), in <data>/<region>/nats/, mode 0600:

    authority.pem, authority.key   the region's own authority, which signs nothing but its link's certificate
    link.pem, link.key             what the region shows on its links, in both directions: to who comes, and where it goes
    trust-<other>.pem              the authority of another region: who answers at that region's address must have it
    trust.pem                      the authorities of all others: who comes must have one of them

An authority for each region, not one for all: so none can stand in for another, not even at the other's address, and there is no
key with which all of them could be imitated.

Invariants:
    - what is there and good is kept; a link's certificate with less than RENEW_BEFORE left, of another name or of another
      authority is made anew, and so is an authority that could not outlive it;
    - nobody but the owner of the data folder reads any of it.
"""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from devstack.files import write_private
from devstack.region import Region
from devstack.seeds import folder

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

VALID_FOR = timedelta(days=90)
RENEW_BEFORE = timedelta(days=30)
_AUTHORITY_VALID_FOR = timedelta(days=3650)
_CLOCKS_DIFFER = timedelta(days=1)


class Files(NamedTuple):
    certificate: Path
    key: Path


class _Pair(NamedTuple):
    certificate: "x509.Certificate"
    key: "EllipticCurvePrivateKey"


def link(region: Region, *, at: datetime | None = None) -> Files:
    """What the region shows on its links. `at`: the time that counts as now."""
    now = at or datetime.now(UTC)
    files = _files(region, "link")
    authority = _authority(region, now)
    held = _read(files)
    if held is None or not _good(held.certificate, region, authority, now):
        _write(files, _issue(_names(region), region.name, authority, now))
    return files


def trust(region: Region, other: Region, *, at: datetime | None = None) -> Path:
    """By what the region knows another one's server."""
    path = folder(region) / f"trust-{other.name}.pem"
    write_private(path, _authority_pem(other, at or datetime.now(UTC)))
    return path


def trust_all(region: Region, others: Sequence[Region], *, at: datetime | None = None) -> Path:
    """By what the region knows those who come."""
    path = folder(region) / "trust.pem"
    now = at or datetime.now(UTC)
    write_private(path, "".join(_authority_pem(other, now) for other in others))
    return path


def _files(region: Region, name: str) -> Files:
    return Files(folder(region) / f"{name}.pem", folder(region) / f"{name}.key")


def _authority_pem(region: Region, now: datetime) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return _authority(region, now).certificate.public_bytes(Encoding.PEM).decode()


def _authority(region: Region, now: datetime) -> _Pair:
    files = _files(region, "authority")
    held = _read(files)
    if held is None or held.certificate.not_valid_after_utc - now < VALID_FOR + RENEW_BEFORE:
        held = _issue([], region.name, None, now)
        _write(files, held)
    return held


def _good(certificate: "x509.Certificate", region: Region, authority: _Pair, now: datetime) -> bool:
    """Whether a certificate may be shown on."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(authority.certificate)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    in_time = certificate.not_valid_before_utc <= now and certificate.not_valid_after_utc - now >= RENEW_BEFORE
    return in_time and list(names) == _names(region)


def _names(region: Region) -> list["x509.GeneralName"]:
    from cryptography import x509

    here = ipaddress.ip_address("127.0.0.1")
    return [x509.DNSName(region.name), x509.DNSName("localhost"), x509.IPAddress(here)]


def _issue(names: Sequence["x509.GeneralName"], name: str, issuer: _Pair | None, now: datetime) -> _Pair:
    """A certificate for a new key: an authority's own where no issuer is given."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    what = "link" if issuer else "authority"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"countroom {what} {name}")])
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + (VALID_FOR if issuer else _AUTHORITY_VALID_FOR))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None if issuer else 0), critical=True)
        .add_extension(_usage(authority=issuer is None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if issuer:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _Pair(builder.sign(signer, hashes.SHA256()), key)


def _usage(*, authority: bool) -> "x509.KeyUsage":
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _read(files: Files) -> _Pair | None:
    """None where there is none, or no whole one."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        key = load_pem_private_key(files.key.read_bytes(), None)
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(key, EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        return None
    return _Pair(certificate, key)


def _write(files: Files, pair: _Pair) -> None:
    """The key first: a certificate with another key beside it is no pair, and made anew."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private(files.key, key.decode())
    write_private(files.certificate, pair.certificate.public_bytes(Encoding.PEM).decode())
