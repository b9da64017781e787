"""E-mail encryption without a server; the primitives are checked against a second implementation built here from the standard."""

from __future__ import annotations

import hashlib
import hmac
import os
import uuid

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ops.pii import PiiCipher, PiiError

OLD, NEW = os.urandom(32), os.urandom(32)
PERSONA = uuid.UUID("12345678-1234-4234-8234-123456789abc")


def hkdf(master: bytes, info: bytes) -> bytes:
    """RFC 5869 with SHA-256, no salt, one block."""
    extracted = hmac.digest(b"\0" * 32, master, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


@pytest.fixture
def cipher() -> PiiCipher:
    return PiiCipher({1: OLD, 2: NEW}, current=2)


@pytest.mark.parametrize(
    "email",
    ["ada@example.org", "  Ada.Lovelace+x@Example.ORG ", "j\u00fcrgen@b\u00fccher.example", "a" * 64 + "@" + "b" * 180 + ".example"],
)
def test_an_address_comes_back_as_it_was_spelt(cipher: PiiCipher, email: str) -> None:
    assert cipher.decrypt(PERSONA, cipher.encrypt(PERSONA, email).ciphertext) == email.strip()


def test_the_ciphertext_is_aes_gcm_under_a_derived_key_bound_to_the_persona(cipher: PiiCipher) -> None:
    stored = cipher.encrypt(PERSONA, "ada@example.org")
    assert stored.key_id == stored.ciphertext[0] == 2
    key = AESGCM(hkdf(NEW, b"phoenix.personas.email/encrypt"))
    bound = b"phoenix.personas.email" + b"\x02" + PERSONA.bytes
    assert key.decrypt(stored.ciphertext[1:13], stored.ciphertext[13:], bound) == b"ada@example.org"


def test_the_lookup_digest_is_hmac_sha256_of_the_normalised_address(cipher: PiiCipher) -> None:
    expected = hmac.new(hkdf(NEW, b"phoenix.personas.email/lookup"), b"ada@example.org", hashlib.sha256).digest()
    assert cipher.lookup_hash(" ADA@Example.org ") == cipher.encrypt(PERSONA, "ada@example.org").email_hash == expected


def test_composed_and_decomposed_spellings_are_found_alike(cipher: PiiCipher) -> None:
    assert cipher.lookup_hash("jo\u0308rg@example.org") == cipher.lookup_hash("J\u00d6RG@example.org")


def test_equal_addresses_have_different_ciphertexts(cipher: PiiCipher) -> None:
    assert len({cipher.encrypt(PERSONA, "ada@example.org").ciphertext for _ in range(50)}) == 50


def test_every_key_gives_another_digest(cipher: PiiCipher) -> None:
    assert len(set(cipher.lookup_hashes("ada@example.org"))) == 2
    assert cipher.lookup_hash("ada@example.org", 1) == PiiCipher({1: OLD}, 1).lookup_hash("ada@example.org")


def test_what_the_old_key_wrote_stays_readable_beside_the_new_one(cipher: PiiCipher) -> None:
    written = PiiCipher({1: OLD}, current=1).encrypt(PERSONA, "ada@example.org")
    assert cipher.decrypt(PERSONA, written.ciphertext) == "ada@example.org"


def test_a_ciphertext_moved_to_another_persona_does_not_open(cipher: PiiCipher) -> None:
    stored = cipher.encrypt(PERSONA, "ada@example.org")
    with pytest.raises(PiiError, match="belongs to another persona"):
        cipher.decrypt(uuid.uuid4(), stored.ciphertext)


@pytest.mark.parametrize("position", [1, 13, -1])
def test_a_changed_ciphertext_does_not_open(cipher: PiiCipher, position: int) -> None:
    changed = bytearray(cipher.encrypt(PERSONA, "ada@example.org").ciphertext)
    changed[position] ^= 1
    with pytest.raises(PiiError):
        cipher.decrypt(PERSONA, bytes(changed))


def test_a_ciphertext_relabelled_with_another_key_does_not_open(cipher: PiiCipher) -> None:
    stored = cipher.encrypt(PERSONA, "ada@example.org").ciphertext
    with pytest.raises(PiiError):
        cipher.decrypt(PERSONA, b"\x01" + stored[1:])
    with pytest.raises(PiiError, match="PII key 9 is needed"):
        cipher.decrypt(PERSONA, b"\x09" + stored[1:])
    with pytest.raises(PiiError, match="cut short"):
        cipher.decrypt(PERSONA, stored[:20])


@pytest.mark.parametrize("email", ["", "ada", "@example.org", "ada@", "a@b@c", "ada lovelace@example.org", "a@" + "b" * 300])
def test_what_is_no_address_is_refused_without_repeating_it(cipher: PiiCipher, email: str) -> None:
    with pytest.raises(PiiError) as refused:
        cipher.encrypt(PERSONA, email)
    assert not email or email not in str(refused.value)


@pytest.mark.parametrize(
    ("keys", "current", "told"), [({1: b"short"}, 1, "5 bytes"), ({256: OLD}, 256, "0 to 255"), ({1: OLD}, 2, "set as current")]
)
def test_unusable_keys_are_refused(keys: dict[int, bytes], current: int, told: str) -> None:
    with pytest.raises(PiiError, match=told):
        PiiCipher(keys, current)


def test_keys_do_not_show_in_representations(cipher: PiiCipher) -> None:
    assert OLD.hex() not in repr(vars(cipher))
    assert repr(OLD)[2:10] not in repr(vars(cipher))
