"""Certificates for tests: each signs itself, for 127.0.0.1."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def make(folder: Path, stem: str, name: str) -> tuple[Path, Path]:
    """Write a certificate and its key; return their files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / f"{stem}.pem", folder / f"{stem}.key"
    plain = serialization.NoEncryption()
    for path, data in (
        (certificate, made.public_bytes(serialization.Encoding.PEM)),
        (secret, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)),
    ):
        partial = path.with_suffix(".part")
        partial.write_bytes(data)
        partial.replace(path)
    return certificate, secret
