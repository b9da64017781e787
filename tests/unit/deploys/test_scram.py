"""SCRAM verifiers: the bytes that RFC 7677 publishes, and a verifier that PostgreSQL itself made."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from deploys.lib import scram

# Made by PostgreSQL 16: CREATE ROLE probe PASSWORD 'correct horse-Battery_9'; SELECT rolpassword FROM pg_authid.
POSTGRESQL = (
    "SCRAM-SHA-256$4096:mTauCmXJDbprcP3tUcT/+g==$ChpQ5OoOLNA9+texaVt4JuXsmzdYr/QpofB+yPyJcuY=:CPz0fVZm1PVAAwHyMV4SWm+BchMrdYWasyC6dCFrSrM="
)
PASSWORD = "correct horse-Battery_9"


def test_keys_make_the_signature_and_accept_the_proof_of_rfc_7677() -> None:
    """RFC 7677, section 3: user `user`, password `pencil`."""
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    salt = "W22ZaJ0SNY7soEsUEjb6gQ=="
    message = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s={salt},i=4096,c=biws,r={nonce}".encode()
    stored, server = (
        base64.b64decode(key) for key in scram.verifier("pencil", salt=base64.b64decode(salt), iterations=4096).split("$")[2].split(":")
    )
    signature = hmac.digest(server, message, "sha256")
    assert base64.b64encode(signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    client_key = bytes(a ^ b for a, b in zip(proof, hmac.digest(stored, message, "sha256"), strict=True))
    assert hashlib.sha256(client_key).digest() == stored


def test_a_verifier_of_postgresql_is_recognised_and_made_alike() -> None:
    assert scram.matches(POSTGRESQL, PASSWORD)
    salt = base64.b64decode("mTauCmXJDbprcP3tUcT/+g==")
    assert scram.verifier(PASSWORD, salt=salt) == POSTGRESQL


def test_each_verifier_has_a_salt_of_its_own_and_does_not_hold_the_password() -> None:
    one, two = scram.verifier(PASSWORD), scram.verifier(PASSWORD)
    assert one != two
    assert PASSWORD not in one + two
    assert scram.matches(one, PASSWORD)
    assert scram.matches(two, PASSWORD)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        "",
        "md5a3556571e93b0d20722ba62be61e8c2d",
        "SCRAM-SHA-256$4096:short",
        "SCRAM-SHA-256$x:AAAA$AAAA:AAAA",
        "SCRAM-SHA-256$0:AAAA$AAAA:AAAA",
        POSTGRESQL.replace("SCRAM-SHA-256", "SCRAM-SHA-1"),
        POSTGRESQL[:-4] + "AAA=",
        POSTGRESQL.replace("4096", "4097"),
    ],
)
def test_anything_else_is_no_verifier_of_the_password(stored: str | None) -> None:
    assert not scram.matches(stored, PASSWORD)


def test_another_password_does_not_match() -> None:
    assert not scram.matches(POSTGRESQL, PASSWORD + "x")
