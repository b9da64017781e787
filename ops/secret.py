"""secrets: the inventory's secret store, in which values are encrypted and names are not."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import time
from pathlib import Path

import pyrage

from deploys.lib.secrets import SecretError, SecretStore, default_identity_file, read_identities
from deploys.lib.settings import Platform, shown
from ops import inventory
from ops.errors import DONE, Failed, Refused
from ops.options import common
from ops.terminal import Terminal, seconds


def arguments(verb: str, parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    shared = [common()]
    init = actions.add_parser("init", parents=shared, help="make the store, encrypted to your own age identity (made when there is none)")
    init.add_argument("--recipient", action="append", default=[], metavar="age1...", help="encrypt to this one too")
    actions.add_parser("list", parents=shared, help="the names of all secrets")
    show = actions.add_parser("show", parents=shared, help="one secret in clear, on stdout")
    show.add_argument("name", metavar="NAME")
    set_ = actions.add_parser("set", parents=shared, help="store one secret, asked for at the terminal or read from stdin")
    set_.add_argument("name", metavar="NAME")
    rekey = actions.add_parser("rekey", parents=shared, help="encrypt everything again, to exactly the recipients named")
    rekey.add_argument("recipients", nargs="+", metavar="age1...", help="who can read it from now on")
    rotate = "make a new key for personas' e-mail addresses and encrypt all of them again; run again, it goes on where it ended"
    actions.add_parser("rotate-pii", parents=shared, help=rotate)


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Do the action of `options`."""
    platform = inventory.read(options.inventory)
    try:
        return _run(options, platform, terminal)
    except SecretError as error:
        raise Refused(str(error)) from error


def _run(options: argparse.Namespace, platform: Platform, terminal: Terminal) -> int:
    if options.action == "init":
        return init(platform, options.recipient, terminal)
    store = inventory.secrets(platform)
    if options.action == "list":
        terminal.result({"store": str(store.path), "encrypted": store.encrypted, "names": store.names()})
        for name in store.names():
            terminal.line(name)
    elif options.action == "show":
        value = store.get(options.name)
        terminal.result({"name": options.name, "value": value})
        terminal.line(value)
    elif options.action == "set":
        known = options.name in store
        store.set(options.name, _ask(options.name))
        terminal.result({"name": options.name, "replaced": known})
        terminal.line(f"{options.name} {'replaced' if known else 'stored'} in {shown(store.path)}.", "green")
    elif options.action == "rotate-pii":
        return rotate_pii(platform, store, terminal)
    else:
        recipients = _recipients(options.recipients)
        store.rekey(recipients)
        terminal.result({"recipients": recipients, "secrets": len(store.names())})
        terminal.line(f"{len(store.names())} secrets encrypted again, to {len(recipients)} recipients.", "green")
    return DONE


def rotate_pii(platform: Platform, store: SecretStore, terminal: Terminal) -> int:
    """Encrypt every persona's e-mail address under a new key. The old key stays in the store: older backups open only with it."""
    from ops import pgconn, pii, pii_rotation  # noqa: PLC0415 - brings psycopg, which the other actions do without

    started = time.monotonic()
    with pgconn.connect(platform, "architect") as connection:
        try:
            done = pii_rotation.rotate_keys(connection, store, progress=terminal.say)
        except pii.PiiError as error:
            raise Failed(str(error)) from error
    took = time.monotonic() - started
    terminal.result({"ok": True, "seconds": round(took, 2), **vars(done)})
    terminal.line(f"{done.reencrypted} addresses are under key {done.key_id} now ({seconds(took)}).", "green")
    return DONE


def init(platform: Platform, further: list[str], terminal: Terminal) -> int:
    """Make the store. The person's own age identity is made too when there is none yet."""
    if platform.secrets_file.exists():  # before an identity is made for it
        raise Refused(f"{shown(platform.secrets_file)} exists already: remove it first if it is to be made anew.")
    identity_file = default_identity_file()
    identities = _identities(identity_file) if identity_file.exists() else [_make_identity(identity_file, terminal)]
    recipients = list(dict.fromkeys([str(identity.to_public()) for identity in identities] + _recipients(further)))
    store = SecretStore.create(platform.secrets_file, recipients=recipients)
    terminal.result({"store": str(store.path), "identity": str(identity_file), "recipients": recipients})
    terminal.line(
        f"{shown(store.path)} made. Keep a copy of {identity_file} somewhere safe: without it nobody can read "
        "the store. The first deploy fills in the passwords and keys that Phoenix makes itself.",
        "green",
    )
    return DONE


def _make_identity(path: Path, terminal: Terminal) -> pyrage.x25519.Identity:
    identity = pyrage.x25519.Identity.generate()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # O_EXCL: an identity that another process made meanwhile is not overwritten; secrets may already depend on it.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"# public key: {identity.to_public()}\n{identity}\n")
    terminal.say(f"Made an age identity for you: {path}")
    return identity


def _identities(path: Path) -> list[pyrage.x25519.Identity]:
    found = read_identities(path)
    if not found:
        raise Refused(f"{path} holds no age identity: put yours there, or remove the file to get a new one.")
    return found


def _recipients(texts: list[str]) -> list[str]:
    for text in texts:
        try:
            pyrage.x25519.Recipient.from_str(text)
        except pyrage.RecipientError:
            raise Refused(f"{text} is not an age recipient: give a public key that begins with age1.") from None
    return texts


def _ask(name: str) -> str:
    """The secret from a prompt that shows nothing, or from stdin without its last line end; never from an argument."""
    value = getpass.getpass(f"{name}: ") if sys.stdin.isatty() else sys.stdin.read().removesuffix("\n")
    if not value:
        raise Refused(f"{name} was not stored, the value is empty: give it on stdin or at the prompt.")
    return value
