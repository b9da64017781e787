"""The secret store: encrypted with age at rest, one writer at a time, silent about its values."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyrage
import pytest
import yaml

from deploys.lib.secrets import IDENTITY_VARIABLE, RECIPIENTS, SecretError, SecretStore
from deploys.lib.settings import ROOT

VALUE = "sesame-Öffne-dich"


@pytest.fixture
def identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The age identity of the person at the keyboard."""
    made = pyrage.x25519.Identity.generate()
    (tmp_path / "age.key").write_text(f"# created: today\n{made}\n")
    monkeypatch.setenv(IDENTITY_VARIABLE, str(tmp_path / "age.key"))
    return str(made)


def public(identity: str) -> str:
    return str(pyrage.x25519.Identity.from_str(identity).to_public())


@pytest.fixture
def store(tmp_path: Path, identity: str) -> SecretStore:
    return SecretStore.create(tmp_path / "site.secrets.yaml", recipients=[public(identity)])


@pytest.fixture
def clear(tmp_path: Path) -> SecretStore:
    return SecretStore.create(tmp_path / "lab.yaml", recipients=[])


def use(identity_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IDENTITY_VARIABLE, str(identity_file))


def test_a_secret_comes_back_and_the_file_shows_its_name_alone(store: SecretStore) -> None:
    store.set("smtp/password", VALUE)
    assert SecretStore.load(store.path).get("smtp/password") == VALUE
    text = store.path.read_text()
    assert "smtp/password: ENC[age," in text
    assert VALUE not in text
    assert store.path.stat().st_mode & 0o777 == 0o600


def test_another_identity_cannot_read_and_says_which_is_needed(store: SecretStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.set("a", VALUE)
    other = tmp_path / "other.key"
    for content in (f"{pyrage.x25519.Identity.generate()}\n", "# no key in here\n"):
        other.write_text(content)
        use(other, monkeypatch)
        with pytest.raises(SecretError, match=r"'a' cannot be decrypted with .*other\.key: use the identity"):
            SecretStore.load(store.path).get("a")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "needs the age identity"),
        ("AGE-SECRET-KEY-1NONSENSE\n", "is not an age identity file"),
        (b"\xff\xfe", "is not an age identity"),
    ],
)
def test_a_missing_or_broken_identity_file_is_named(
    store: SecretStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | bytes | None, says: str
) -> None:
    store.set("a", VALUE)
    broken = tmp_path / "broken.key"
    if content is not None:
        broken.write_bytes(content if isinstance(content, bytes) else content.encode())
    use(broken, monkeypatch)
    with pytest.raises(SecretError, match=says):
        SecretStore.load(store.path).get("a")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("- a\n- b\n", "not a mapping"),
        ("a: {b: c}\n", "not text"),
        ("a: [unclosed\n", "cannot be read"),
        (f"{RECIPIENTS}: age1something\n", "not a list of age recipients"),
    ],
)
def test_a_malformed_store_is_refused_without_a_word_of_what_is_in_it(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "site.secrets.yaml"
    path.write_text(content + f"# {VALUE}\n")
    path.chmod(0o600)
    with pytest.raises(SecretError, match=says) as refused:
        SecretStore.load(path)
    assert VALUE not in str(refused.value)


def test_a_missing_store_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match=r"does not exist: make it with 'phoenix secrets init'"):
        SecretStore.load(tmp_path / "site.secrets.yaml")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_secrets_in_clear_that_others_may_read_are_refused(clear: SecretStore, mode: int) -> None:
    clear.set("a", VALUE)
    clear.path.chmod(mode)
    with pytest.raises(SecretError, match="chmod 600"):
        SecretStore.load(clear.path)


def test_a_value_in_clear_in_an_encrypted_store_is_refused(store: SecretStore) -> None:
    content = yaml.safe_load(store.path.read_text())
    store.path.write_text(yaml.safe_dump({**content, "a": VALUE}))
    with pytest.raises(SecretError, match="'a' is not encrypted") as refused:
        SecretStore.load(store.path).get("a")
    assert VALUE not in str(refused.value)


def test_neither_repr_nor_errors_hold_a_value(store: SecretStore) -> None:
    store.set("a", VALUE)
    with pytest.raises(SecretError, match="has no secret 'b'") as refused:
        store.get("b")
    assert VALUE not in f"{store!r} {store} {refused.value}"
    assert "1 secrets" in repr(store)


def test_ensure_makes_a_secret_once(clear: SecretStore) -> None:
    assert clear.ensure("a", lambda: "first") == "first"
    assert clear.ensure("a", lambda: "second") == "first"


def test_two_processes_that_both_lack_a_secret_agree_on_one(clear: SecretStore) -> None:
    late = SecretStore.load(clear.path)  # has read the store before the other made the secret
    assert clear.ensure("a", lambda: "first") == "first"
    assert late.ensure("a", lambda: "second") == "first"
    clear.ensure_together(("key", "certificate"), lambda: ("key 1", "certificate 1"))
    late.ensure_together(("key", "certificate"), lambda: ("key 2", "certificate 2"))
    assert (late.get("key"), late.get("certificate")) == ("key 1", "certificate 1")


def test_half_a_pair_is_made_anew_as_a_whole(clear: SecretStore) -> None:
    clear.set("key", "of an earlier, interrupted run")
    clear.ensure_together(("key", "certificate"), lambda: ("key 1", "certificate 1"))
    again = SecretStore.load(clear.path)
    assert (again.get("key"), again.get("certificate")) == ("key 1", "certificate 1")


def test_writers_at_the_same_time_lose_nothing(clear: SecretStore) -> None:
    program = (
        "import sys; from pathlib import Path; from deploys.lib.secrets import SecretStore\n"
        "store = SecretStore.load(Path(sys.argv[1]))\n"
        "for n in range(25): store.set(f'{sys.argv[2]}/{n}', 'x')"
    )
    command = [sys.executable, "-c", program, str(clear.path)]
    writers = [subprocess.Popen([*command, name], cwd=ROOT) for name in ("a", "b", "c")]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    assert SecretStore.load(clear.path).names() == sorted(f"{name}/{n}" for name in "abc" for n in range(25))
    assert [path.name for path in clear.path.parent.iterdir() if path.name.startswith(".lab")] == []


def test_rekey_gives_every_value_to_the_new_identity_alone(
    store: SecretStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identity: str
) -> None:
    store.set("a", VALUE)
    SecretStore.load(store.path).set("b", "set elsewhere meanwhile")
    SecretStore.load(store.path).set("a", "changed elsewhere meanwhile")
    new = pyrage.x25519.Identity.generate()
    store.rekey([str(new.to_public())])
    with pytest.raises(SecretError, match="cannot be decrypted"):
        SecretStore.load(store.path).get("a")
    (tmp_path / "new.key").write_text(f"{new}\n")
    use(tmp_path / "new.key", monkeypatch)
    loaded = SecretStore.load(store.path)
    assert {name: loaded.get(name) for name in loaded.names()} == {"a": "changed elsewhere meanwhile", "b": "set elsewhere meanwhile"}


def test_a_writer_from_before_a_rekey_writes_for_the_new_identity(
    store: SecretStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = SecretStore.load(store.path)
    new = pyrage.x25519.Identity.generate()
    store.rekey([str(new.to_public())])
    early.set("a", VALUE)
    (tmp_path / "new.key").write_text(f"{new}\n")
    use(tmp_path / "new.key", monkeypatch)
    assert SecretStore.load(store.path).get("a") == VALUE


def test_a_store_is_never_made_over_another(store: SecretStore) -> None:
    with pytest.raises(SecretError, match="exists already"):
        SecretStore.create(store.path, recipients=[])
