"""TLS: every host has a key of its own, made on the host, and a certificate of the platform's authority.

A certificate is valid for 90 days and made anew by any deploy in its last 30; an alert tells when nobody deployed.
"""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import StringCommand, deploy, operation

from deploys.lib import facts, findings, hosts
from deploys.lib.operations import Commands, Directory, File, files, write_command
from deploys.lib.pki import Authority
from deploys.lib.settings import HostSettings

DIRECTORY = "/etc/phoenix/tls"
CA, CERTIFICATE, KEY = f"{DIRECTORY}/ca.crt", f"{DIRECTORY}/host.crt", f"{DIRECTORY}/host.key"
ALL = [CA, CERTIFICATE, KEY]
GROUP = "phoenix-tls"
_READERS: dict[str, set[str]] = {}
"""Who was in the group when this run last looked, by host: each service has its readers, and no deploy takes one away."""
CURL = f"curl -sSf --cacert {CA} --cert {CERTIFICATE} --key {KEY}"
"""curl with the host's identity: quiet, fails on an error status."""


@deploy("TLS")
def tls() -> None:
    """The host can prove who it is to the others, and can check them."""
    group(name="Group that may read the host's key")
    files(
        name="Certificate of the authority",
        entries=[Directory("/etc/phoenix"), Directory(DIRECTORY), File(CA, lambda: Authority.of(hosts.secrets()).certificate)],
    )
    certificate(name="Certificate of the host")


@operation()
def group() -> Commands:
    """The group exists; a service joins it to read the key."""
    if host.get_fact(facts.Output, script=f"getent group {GROUP}").endswith(facts.FAILED):
        findings.report(f"group {GROUP} is missing")
        yield f"groupadd --system {GROUP}"


@operation()
def readers(users: list[str]) -> Commands:
    """These system users may read the host's key."""
    if set(users) <= _READERS.get(name := str(host.name), set()):
        return
    _READERS[name] = set(str(host.get_fact(facts.Output, script=f"getent group {GROUP} | cut -d: -f4")).split(","))
    missing = sorted(set(users) - _READERS[name])
    for user in missing:
        findings.report(f"{user} is not in {GROUP}")
    for user in missing:
        yield f"usermod --append --groups {GROUP} {user}"


@operation()
def certificate() -> Commands:
    """The host's certificate is the authority's, for its names, good for another 30 days, and fits its key."""
    authority = Authority.of(hosts.secrets())
    names = [str(host.name), hosts.settings(HostSettings).address, "localhost", "127.0.0.1"]
    fits = f'test "$(openssl x509 -in {CERTIFICATE} -noout -pubkey)" = "$(openssl pkey -in {KEY} -pubout)" && cat {CERTIFICATE}'
    present = host.get_fact(facts.Output, script=f"({fits}) 2>/dev/null")
    fault = "is missing or does not fit the key" if present.endswith(facts.FAILED) else authority.fault(present, alternatives=names)
    if fault is None:
        return
    findings.report(f"{CERTIFICATE} {fault}")
    yield (
        f"umask 077 && openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {KEY}.new "
        f"&& chown root:{GROUP} {KEY}.new && chmod 640 {KEY}.new"
    )
    request = host.get_fact(facts.Output, script=f"openssl req -new -key {KEY}.new -subj /CN={host.name}")
    signed = authority.sign(request, name=str(host.name), alternatives=names)
    yield StringCommand(write_command(File(f"{CERTIFICATE}.new", "")), _stdin=signed)
    yield f"mv -f {KEY}.new {KEY} && mv -f {CERTIFICATE}.new {CERTIFICATE}"
