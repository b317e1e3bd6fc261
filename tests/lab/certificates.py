"""A certificate for a server on this machine."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.lab.network import ADDRESS


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for this machine's names, and its key.

    They are 127.0.0.1, localhost and the one in :mod:`tests.lab.network`.

    It is its own authority: a client verifies the server by trusting the
    certificate file. Good for a week, from an hour ago.

    :return: the certificate's file and the key's, both PEM.

    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name.from_rfc4514_string("CN=127.0.0.1")
    now = datetime.datetime.now(datetime.timezone.utc)
    public = key.public_key()
    # From Python 3.13 on, ssl is strict (RFC 5280): an authority needs its
    # usage and both key identifiers.
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=7))
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                    x509.DNSName("localhost"),
                    x509.IPAddress(ADDRESS),
                ]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(public), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(public),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    certificate_file = folder / "server.crt"
    certificate_file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
    )
    key_file = folder / "server.key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_file, key_file
