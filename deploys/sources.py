"""Vendors' Debian repositories, as the settings name them. A key is taken only when its fingerprint is the expected one."""

from __future__ import annotations

import shlex
from pathlib import Path

from pyinfra import host
from pyinfra.api import deploy, operation

from deploys.lib import facts, findings, hosts
from deploys.lib.operations import Commands, File, files, packages, template
from deploys.lib.settings import AptSource, HostSettings

KEYRINGS = "/etc/apt/keyrings"


@deploy("Package sources")
def sources() -> None:
    """The host knows the repositories in `host_apt_sources`, no earlier ones of ours, and trusts exactly their keys."""
    wanted = hosts.settings(HostSettings).apt_sources
    only(name="No other repositories", names=sorted(wanted))
    if not wanted:
        return
    packages(name="Tools to fetch keys", names=["ca-certificates", "curl", "gpg"])
    for name, source in wanted.items():
        signing_key(name=f"Signing key of {name}", source_name=name, source=source)
    files(
        name="Repositories",
        entries=[
            File(
                f"/etc/apt/sources.list.d/phoenix-{name}.sources",
                template("base/apt.sources.j2", name=name, source=source, keyrings=KEYRINGS),
            )
            for name, source in wanted.items()
        ],
    )


@operation()
def signing_key(source_name: str, source: AptSource) -> Commands:
    """The repository's key is in the keyring directory and has the expected fingerprint."""
    path = f"{KEYRINGS}/phoenix-{source_name}.asc"
    if not host.get_fact(facts.Output, script=_holds_only(path, source.key_fingerprint)).endswith(facts.FAILED):
        return
    findings.report(f"key {path} is missing or another")
    url = shlex.quote(source.key_url)
    complaint = shlex.quote(
        f"{source.key_url} is not the key {source.key_fingerprint} alone and in force: check host_apt_sources.{source_name}."
    )
    yield (
        f"install -d -m 755 {KEYRINGS} && t=$(mktemp) && trap 'rm -f $t' EXIT && curl -fsSL --retry 3 --max-time 60 -o $t {url} "
        f"&& {{ {_holds_only('$t', source.key_fingerprint)} || {{ echo {complaint} >&2; exit 1; }}; }} && install -m 644 $t {path}"
    )


def _holds_only(path: str, fingerprint: str) -> str:
    """Shell that succeeds when the file holds the one primary key, neither expired nor revoked, and no other that apt would trust too."""
    keys = 'awk -F: \'$1 == "pub" {state = $2; primary = 1} $1 == "fpr" && primary {print $10 state; primary = 0}\''
    return f'test "$(gpg --batch --quiet --show-keys --with-colons {path} 2>/dev/null | {keys} | tr -d -)" = {fingerprint}'


@operation()
def only(names: list[str]) -> Commands:
    """Of the repositories that Phoenix wrote, the host has these and no others."""
    written = host.get_fact(facts.Output, script=f"ls /etc/apt/sources.list.d/phoenix-*.sources {KEYRINGS}/phoenix-*.asc 2>/dev/null; true")
    extra = sorted(path for path in str(written).split() if Path(path).stem.removeprefix("phoenix-") not in names)
    for path in extra:
        findings.report(f"{path} belongs to no repository of host_apt_sources")
    if extra:
        yield f"rm -f {shlex.join(extra)}"
