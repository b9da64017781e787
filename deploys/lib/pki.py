"""The platform's own certificate authority. Its key lives in the secret store; hosts make their own keys and only ask for signatures."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploys.lib.secrets import SecretStore

AUTHORITY_DAYS = 3650
HOST_DAYS = 90
RENEW_BEFORE_DAYS = 30
KEY_SECRET, CERTIFICATE_SECRET = "tls/ca.key", "tls/ca.crt"


@dataclass(frozen=True)
class Authority:
    """Certificate authority; PEM text."""

    key: str
    certificate: str

    @classmethod
    def of(cls, secrets: SecretStore) -> Authority:
        """The inventory's authority, made at first use."""
        secrets.ensure_together((KEY_SECRET, CERTIFICATE_SECRET), cls._pair)
        return cls(secrets.get(KEY_SECRET), secrets.get(CERTIFICATE_SECRET))

    @classmethod
    def _pair(cls) -> tuple[str, str]:
        made = cls.make()
        return made.key, made.certificate

    @classmethod
    def make(cls) -> Authority:
        """A new authority, valid for ten years."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Phoenix CA")])
        certificate = (
            _builder(name, name, key.public_key(), AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return cls(private.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode())

    def sign(self, request: str, *, name: str, alternatives: Sequence[str], days: int = HOST_DAYS) -> str:
        """A certificate for the PEM certificate request's key, as server and as client.

        Name and alternative names (host names and addresses) come from the caller, never from the request.
        """
        key = serialization.load_pem_private_key(self.key.encode(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - made by `make`
        issuer = x509.load_pem_x509_certificate(self.certificate.encode())
        asked = x509.load_pem_x509_csr(request.encode())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            _builder(issuer.subject, subject, asked.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_general_name(text) for text in alternatives]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode()

    def fault(self, certificate: str, *, alternatives: Sequence[str], now: datetime.datetime | None = None) -> str | None:
        """Why a host's PEM certificate has to be made anew; None when it is good for at least another 30 days."""
        try:
            present = x509.load_pem_x509_certificate(certificate.encode())
            present.verify_directly_issued_by(x509.load_pem_x509_certificate(self.certificate.encode()))
            names = present.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except Exception:  # any defect of what lies there has the same remedy
            return "is not a certificate of this authority"
        if set(names) != {_general_name(text) for text in alternatives}:
            return "is for other names"
        left = present.not_valid_after_utc - (now or datetime.datetime.now(datetime.UTC))
        if left < datetime.timedelta(days=RENEW_BEFORE_DAYS):
            return f"expires in {left.days} days"
        return None


def _builder(issuer: x509.Name, subject: x509.Name, key: CertificatePublicKeyTypes, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # hosts' clocks may be a little behind
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
