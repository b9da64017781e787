"""Secrets of one inventory: `inventory/<name>.secrets.yaml`, keys in clear, values encrypted with age.

The file is a flat YAML mapping, `postgresql/architect: ENC[age,...]`, so that a review shows which secret changed and never to what.
It is encrypted to the recipients listed under `_recipients`; reading it takes the identity file that `PHOENIX_AGE_KEY_FILE` names
(default `~/.config/phoenix/age.key`). The lab's store lives outside the checkout, mode 0600, without recipients, in clear.
"""

from __future__ import annotations

import base64
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyrage
import yaml

RECIPIENTS = "_recipients"
IDENTITY_VARIABLE = "PHOENIX_AGE_KEY_FILE"
_PREFIX, _SUFFIX = "ENC[age,", "]"


class SecretError(Exception):
    """A secret or its store cannot be used; the text says which, why, and what to do."""


def default_identity_file() -> Path:
    """The age identity (private key) file of the person at the keyboard."""
    return Path(os.environ.get(IDENTITY_VARIABLE, "~/.config/phoenix/age.key")).expanduser()


def read_identities(path: Path) -> list[pyrage.x25519.Identity]:
    """The age identities in a file, none when it has no such line. Raises SecretError for anything else, OSError when it is not there."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [pyrage.x25519.Identity.from_str(line.strip()) for line in lines if line.startswith("AGE-SECRET-KEY-")]
    except (pyrage.IdentityError, UnicodeDecodeError):
        raise SecretError(f"{path} is not an age identity file: restore it, or set {IDENTITY_VARIABLE} to another.") from None


class SecretStore:
    """Named secrets of one inventory. Values are text; they never appear in `repr`, errors or logs."""

    def __init__(self, path: Path, *, recipients: list[str], values: dict[str, str]) -> None:
        self.path = path
        self.recipients = recipients
        self._stored = values  # as in the file: encrypted where there are recipients
        self._plain: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"SecretStore({self.path}, {len(self._stored)} secrets)"

    @property
    def encrypted(self) -> bool:
        """Whether values are encrypted at rest (always, outside the lab)."""
        return bool(self.recipients)

    @classmethod
    def create(cls, path: Path, *, recipients: list[str]) -> SecretStore:
        """Make an empty store at `path`. Raises SecretError when there is one already."""
        if path.exists():
            raise SecretError(f"{path} exists already: remove it first if it is to be made anew.")
        store = cls(path, recipients=recipients, values={})
        store._write()
        return store

    @classmethod
    def load(cls, path: Path) -> SecretStore:
        """Read the store. Raises SecretError when it is missing, unreadable or malformed."""
        try:
            content: Any = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except FileNotFoundError:
            raise SecretError(f"{path} does not exist: make it with 'phoenix secrets init'.") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SecretError(f"{path} cannot be read ({type(error).__name__}): restore it from your backup.") from None
        if not isinstance(content, dict):
            raise SecretError(f"{path} is not a mapping of names to secrets: restore it from your backup.")
        recipients = content.pop(RECIPIENTS, [])
        if not isinstance(recipients, list) or not all(isinstance(one, str) for one in recipients):
            raise SecretError(f"{path}: {RECIPIENTS} is not a list of age recipients: restore it from your backup.")
        if not all(isinstance(value, str) for value in content.values()):
            raise SecretError(f"{path} has a value that is not text: set it again with 'phoenix secrets set NAME'.")
        if not recipients and path.stat().st_mode & 0o077:
            raise SecretError(f"{path} holds secrets in clear and others may read it: run chmod 600 on it.")
        return cls(path, recipients=recipients, values=content)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._stored)

    def __contains__(self, name: str) -> bool:
        return name in self._stored

    def get(self, name: str) -> str:
        """The secret in clear. Raises SecretError when it is not in the store or cannot be decrypted."""
        if name not in self._plain:
            if name not in self._stored:
                raise SecretError(f"{self.path} has no secret '{name}': add it with 'phoenix secrets set {name}'.")
            self._plain[name] = self._decrypt(name, self._stored[name])
        return self._plain[name]

    def set(self, name: str, value: str) -> None:
        """Store one secret and write the file."""
        with self._locked():
            self._put(name, value)
            self._write()

    def ensure(self, name: str, generate: Callable[[], str]) -> str:
        """The secret, generated and stored first when there is none yet."""
        self.ensure_together((name,), lambda: (generate(),))
        return self.get(name)

    def ensure_together(self, names: Sequence[str], generate: Callable[[], Sequence[str]]) -> None:
        """All of these secrets are there; when one is missing, all are generated and stored in one step (a key and its certificate)."""
        if all(name in self._stored for name in names):
            return
        with self._locked():
            if all(name in self._stored for name in names):  # another process was quicker: its values are the ones
                return
            for name, value in zip(names, generate(), strict=True):
                self._put(name, value)
            self._write()

    def rekey(self, recipients: list[str]) -> None:
        """Encrypt every value again, to `recipients`."""
        with self._locked():
            plain = {name: self.get(name) for name in self._stored}
            self.recipients = recipients
            self._stored = {name: self._encrypt(value) for name, value in plain.items()}
            self._write()

    def _put(self, name: str, value: str) -> None:
        self._stored[name] = self._encrypt(value)
        self._plain[name] = value

    def _encrypt(self, value: str) -> str:
        if not self.recipients:
            return value
        recipients = [pyrage.x25519.Recipient.from_str(text) for text in self.recipients]
        return _PREFIX + base64.b64encode(pyrage.encrypt(value.encode(), recipients)).decode() + _SUFFIX

    def _decrypt(self, name: str, stored: str) -> str:
        if not (stored.startswith(_PREFIX) and stored.endswith(_SUFFIX)):
            if self.recipients:
                raise SecretError(f"{self.path}: '{name}' is not encrypted: set it again with 'phoenix secrets set {name}'.")
            return stored
        identity_file = default_identity_file()
        try:
            identities = read_identities(identity_file)
        except OSError:
            raise SecretError(f"{self.path} needs the age identity {identity_file}: put it there or set {IDENTITY_VARIABLE}.") from None
        try:
            return str(pyrage.decrypt(base64.b64decode(stored[len(_PREFIX) : -len(_SUFFIX)]), identities), "utf-8")
        except (pyrage.DecryptError, ValueError):
            raise SecretError(
                f"{self.path}: '{name}' cannot be decrypted with {identity_file}: use the identity it was encrypted to."
            ) from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time; what another process wrote meanwhile is taken over first."""
        try:
            lock = self.path.with_suffix(".lock").open("w")
        except OSError as error:
            raise SecretError(f"{self.path} cannot be written ({error.strerror}): check the rights of its directory.") from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            present = SecretStore.load(self.path)
            self._plain = {name: value for name, value in self._plain.items() if present._stored.get(name) == self._stored.get(name)}
            self._stored, self.recipients = present._stored, present.recipients
            yield

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = dict(sorted(self._stored.items()))
        if self.recipients:
            content = {RECIPIENTS: self.recipients, **content}
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")  # mkstemp makes it 0600
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            yaml.safe_dump(content, file, width=1_000_000)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(self.path)
