"""Vendors' Debian repositories, as the settings name them. A key is taken only when its fingerprint is the expected one."""

from __future__ import annotations

import shlex

from pyinfra import host
from pyinfra.api import deploy, operation

from deploys.lib import facts, findings, hosts
from deploys.lib.operations import Commands, File, files, packages, template
from deploys.lib.settings import AptSource, HostSettings

KEYRINGS = "/etc/apt/keyrings"


@deploy("Package sources")
def sources() -> None:
    """The host knows the repositories in `host_apt_sources` and trusts exactly their keys."""
    wanted = hosts.settings(HostSettings).apt_sources
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
    fingerprints = f"gpg --batch --quiet --show-keys --with-colons {{}} 2>/dev/null | grep -q '^fpr:.*:{source.key_fingerprint}:'"
    if not host.get_fact(facts.Output, script=fingerprints.format(path)).endswith(facts.FAILED):
        return
    findings.report(f"key {path} is missing or another")
    url = shlex.quote(source.key_url)
    complaint = shlex.quote(f"{source.key_url} is not the key {source.key_fingerprint}: check host_apt_sources.{source_name}.")
    yield (
        f"install -d -m 755 {KEYRINGS} && t=$(mktemp) && trap 'rm -f $t' EXIT && curl -fsSL --retry 3 --max-time 60 -o $t {url} "
        f"&& {{ {fingerprints.format('$t')} || {{ echo {complaint} >&2; exit 1; }}; }} && install -m 644 $t {path}"
    )
