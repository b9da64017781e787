"""phoenix secrets: what is in the file and who can read it, checked with age's own library."""

from __future__ import annotations

import base64
import stat
from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest
import yaml

from tests.unit.ops.conftest import Command

Inventory = Callable[..., Path]


@pytest.fixture
def secrets(phoenix: Command, inventory: Inventory) -> Command:
    """`phoenix secrets ARGUMENTS` for an inventory of its own."""
    path = str(inventory())
    return lambda *arguments, **options: phoenix("-i", path, "secrets", *arguments, **options)


def decrypted(store: Path, name: str, identity: str) -> str:
    stored = yaml.safe_load(store.read_text())[name]
    cipher = base64.b64decode(stored.removeprefix("ENC[age,").removesuffix("]"))
    return pyrage.decrypt(cipher, [pyrage.x25519.Identity.from_str(identity)]).decode()


def identity_of(path: Path) -> str:
    (line,) = [line for line in path.read_text().splitlines() if line.startswith("AGE-SECRET-KEY-")]
    return line


def test_values_are_encrypted_to_the_persons_own_identity_and_names_are_readable(
    secrets: Command, tmp_path: Path, environment: dict[str, str]
) -> None:
    assert secrets("init").code == 0
    identity_file, store = Path(environment["PHOENIX_AGE_KEY_FILE"]), tmp_path / "site.secrets.yaml"
    assert stat.S_IMODE(identity_file.stat().st_mode) == 0o600
    ended = secrets("set", "smtp/password", stdin="correct horse\n")
    assert ended.code == 0
    assert "correct horse" not in ended.out + ended.err + store.read_text()
    assert decrypted(store, "smtp/password", identity_of(identity_file)) == "correct horse"
    assert secrets("list").out == "smtp/password\n"
    assert secrets("show", "smtp/password").out == "correct horse\n"
    assert secrets("list", "--json").json["encrypted"] is True


def test_rekey_gives_the_store_to_another_and_takes_it_from_the_first(
    secrets: Command, tmp_path: Path, environment: dict[str, str]
) -> None:
    secrets("init")
    secrets("set", "a", stdin="1")
    secrets("set", "b", stdin="2")
    other = pyrage.x25519.Identity.generate()
    assert secrets("rekey", str(other.to_public())).code == 0
    store = tmp_path / "site.secrets.yaml"
    assert [decrypted(store, name, str(other)) for name in ("a", "b")] == ["1", "2"]
    with pytest.raises(pyrage.DecryptError):
        decrypted(store, "a", identity_of(Path(environment["PHOENIX_AGE_KEY_FILE"])))
    refused = secrets("show", "a")
    assert refused.code == 2
    assert "cannot be decrypted" in refused.err


def test_init_uses_the_identity_there_is_and_never_overwrites_a_store(secrets: Command, environment: dict[str, str]) -> None:
    mine = pyrage.x25519.Identity.generate()
    Path(environment["PHOENIX_AGE_KEY_FILE"]).write_text(f"{mine}\n")
    colleague = str(pyrage.x25519.Identity.generate().to_public())
    made = secrets("init", "--recipient", colleague, "--json")
    assert made.json["recipients"] == [str(mine.to_public()), colleague]
    again = secrets("init")
    assert again.code == 2
    assert "exists already" in again.err


@pytest.mark.parametrize(
    ("content", "says"), [("AGE-SECRET-KEY-1NONSENSE\n", "is not an age identity file"), ("# a comment\n", "holds no age identity")]
)
def test_init_refuses_an_identity_file_without_an_identity(secrets: Command, environment: dict[str, str], content: str, says: str) -> None:
    Path(environment["PHOENIX_AGE_KEY_FILE"]).write_text(content)
    refused = secrets("init")
    assert refused.code == 2
    assert says in refused.err
    assert "Traceback" not in refused.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "nothing"), "has no secret 'nothing'"),
        (("rekey", "age1nonsense"), "age1nonsense is not an age recipient"),
        (("frobnicate",), "frobnicate"),
    ],
)
def test_mistakes_are_refused(secrets: Command, arguments: tuple[str, ...], says: str) -> None:
    secrets("init")
    ended = secrets(*arguments)
    assert ended.code == 2
    assert says in ended.err
    assert "Traceback" not in ended.err


def test_empty_value_is_not_stored(secrets: Command) -> None:
    secrets("init")
    assert secrets("set", "a", stdin="\n").code == 2
    assert secrets("list").out == ""
