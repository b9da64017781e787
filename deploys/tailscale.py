"""Tailscale: the host's place in the private network of the platform, at the address that the inventory declares.

A host joins once, with a key that is good for one join; from then on its identity is in the secret store, and a host made anew gets it back
before tailscaled starts: it needs no second key and has the address that it had.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Callable
from typing import Any

from pyinfra import context, host
from pyinfra.api import StringCommand, deploy, operation

from deploys import exporters, tls
from deploys.lib import artifacts, facts, findings, hosts, sizing, tailnet, verify
from deploys.lib.artifacts import GoProgram
from deploys.lib.operations import Commands, Directory, File, files, refusal, service, template, upload, write_command
from deploys.lib.settings import ROOT, TailscaleSettings, of
from deploys.lib.tailnet import Member

PROGRAMS = GoProgram(
    module="tailscale.com",
    version="v1.102.5",
    checksum="h1:2jK9VxQU4Vq/tyR7f2U2NqINxU0pV7R14TDBFsfguHE=",
    package="tailscale.com/cmd/tailscaled",
    go=(1, 26),
    also=("tailscale.com/cmd/tailscale",),
    # Without them it does not know its own version.
    stamps=(("tailscale.com/version.shortStamp", "1.102.5"), ("tailscale.com/version.longStamp", "1.102.5-phoenix")),
)
HOME = "/opt/phoenix/tailscale"
USER = "phoenix-tailscale"
UNIT = "/etc/systemd/system/tailscaled.service"
ADDRESS_UNIT = "/etc/systemd/system/phoenix-tailnet-address.service"
STATE = "/var/lib/tailscale/tailscaled.state"
SOCKET = "/run/tailscale/tailscaled.sock"
KEY_FILE = "/run/phoenix-tailscale.key"
METRICS = "/usr/local/lib/phoenix/tailnet_metrics.py"
METRICS_UNIT = "/etc/systemd/system/phoenix-tailnet-metrics.service"
METRICS_TIMER = "/etc/systemd/system/phoenix-tailnet-metrics.timer"

# Prints {"status": …, "prefs": …}, which is one question instead of two.
_ASKED = "{ printf '{\"status\": '; %(client)s status --json --peers=false; printf ', \"prefs\": '; %(client)s debug prefs; printf '}'; }"
_DECIDED = '"BackendState": "\\(Running\\|NeedsLogin\\|Stopped\\|NeedsMachineAuth\\)"'


def packages() -> list[str]:
    """Debian packages that the host needs."""
    package = hosts.settings(TailscaleSettings).package
    return ["iproute2", *([package] if package else [])]


def client() -> str:
    """Path of the command line program."""
    return "/usr/bin/tailscale" if hosts.settings(TailscaleSettings).package else f"{HOME}/tailscale"


def members() -> list[Member]:
    """The hosts of the tailnet, for the policy."""
    return [
        Member(str(one.name), frozenset(one.groups), lambda model, one=one: of(one, model))  # type: ignore[misc]
        for one in hosts.members(tailnet.EVERY_HOST)
    ]


def address() -> str:
    """The present host's declared address in the tailnet."""
    return tailnet.address(hosts.settings)


def key_secret(name: str) -> str:
    """Name, in the store, of the key with which a host joins."""
    return f"tailscale/{name}-key"


def identity_secret(name: str) -> str:
    """Name, in the store, of what a host is to the control server: tailscaled's state, as base64."""
    return f"tailscale/{name}-identity"


@deploy("Tailscale")
def tailscale() -> None:
    """tailscaled runs and the host has joined, with its own identity where it had one before."""
    settings = hosts.settings(TailscaleSettings)
    daemon = "/usr/sbin/tailscaled" if settings.package else f"{HOME}/tailscaled"
    wrapper = File("/usr/local/bin/tailscale", template("tailscale/tailscale.j2", client=client()), mode="755")
    if not settings.package:
        upload(name="Programs", source=lambda: artifacts.go_program(PROGRAMS), directory=HOME)
    exporters.account(name=f"User {USER}", user=USER)
    files(
        name="Units",
        entries=[
            Directory("/var/lib/tailscale", USER, USER, "700"),
            File(ADDRESS_UNIT, template("tailscale/phoenix-tailnet-address.service.j2", address=address(), network=tailnet.NETWORK)),
            File(UNIT, unit(settings, daemon)),
            *([] if settings.package else [wrapper]),
        ],
    )
    service(name="The address is there", unit="phoenix-tailnet-address.service", restart_on=[ADDRESS_UNIT])
    identity(name="The host is who it was")
    restart_on = [UNIT, *([daemon] if settings.package else [f"{HOME}/.phoenix-digest"]), *([tls.CA] if settings.ca_file == tls.CA else [])]
    service(name="tailscaled runs with this configuration", unit="tailscaled.service", restart_on=restart_on)
    verify.answers(
        name="tailscaled knows where it stands",
        script=f"{client()} status --json --peers=false | grep '{_DECIDED}'",
        seconds=30,
        problem=f"tailscaled on {host.name} does not come up: look at 'phoenix logs tailscale'.",
    )
    joined(name="The host has joined")


def unit(settings: TailscaleSettings, daemon: str) -> Callable[[], str]:
    """Content of tailscaled's unit file."""
    return template(
        "tailscale/tailscaled.service.j2",
        cfg=settings,
        daemon=daemon,
        user=USER,
        state=STATE,
        socket=SOCKET,
        threads=lambda: sizing.tailnet_threads(hosts.resources().cores),
    )


@operation()
def identity() -> Commands:
    """A host without an identity gets the one that is in the store, if any, before tailscaled makes it a new one."""
    name = identity_secret(str(host.name))
    if name not in hosts.secrets() or not host.get_fact(facts.Output, script=f"test -s {STATE}").endswith(facts.FAILED):
        return
    findings.report(f"{STATE} is missing")
    yield "systemctl stop tailscaled.service 2>/dev/null; true"
    text = base64.b64decode(hosts.secrets().get(name)).decode()
    yield StringCommand(write_command(File(STATE, "", USER, USER, "600")), _stdin=text)


def flags(settings: TailscaleSettings) -> list[str]:
    """All flags of `tailscale up`: those that are not named it puts back to their defaults."""
    return [
        "--reset",
        f"--login-server={settings.login_server}",
        f"--hostname={host.name}",
        "--accept-dns=false",
        "--accept-routes=false",
        "--netfilter-mode=on",
        "--timeout=60s",
    ]


def preferences() -> dict[str, Any]:
    """What tailscaled remembers of `flags()`."""
    return {
        "ControlURL": hosts.settings(TailscaleSettings).login_server,
        "Hostname": str(host.name),
        "CorpDNS": False,
        "RouteAll": False,
        "RunSSH": False,
        "WantRunning": True,
        "LoggedOut": False,
    }


@operation()
def joined() -> Commands:
    """The host is in the tailnet with the preferences of the settings; with the key from the store when it has no valid place there."""
    name, store = str(host.name), hosts.secrets()
    said = host.get_fact(facts.Json, script=_ASKED % {"client": client()})
    status, prefs = (said["status"], said["prefs"]) if said else ({}, {})
    needs_key = status.get("BackendState") != "Running" and (status.get("BackendState") != "Stopped" or not status.get("HaveNodeKey"))
    other = sorted(key for key, value in preferences().items() if prefs.get(key) != value)
    if not needs_key and not other:
        return
    findings.report("the host is not in the tailnet" if needs_key else f"tailscaled runs with another {', '.join(other)}")
    up = f"{client()} up {shlex.join(flags(hosts.settings(TailscaleSettings)))}"
    if not needs_key:
        yield up
        return
    if key_secret(name) not in store:
        yield refusal(
            f"{name} is not in the tailnet and {store.path} has no {key_secret(name)}: make a one-time key with the tags "
            f"{', '.join(tailnet.tags(name, host.groups))} and give it to 'phoenix secrets set {key_secret(name)}' (docs/tailscale.md)."
        )
        return
    yield StringCommand(write_command(File(KEY_FILE, "", mode="600")), _stdin=store.get(key_secret(name)) + "\n")
    yield f"{up} --force-reauth --auth-key=file:{KEY_FILE}; status=$?; rm -f {KEY_FILE}; exit $status"


@deploy("Tailnet")
def settled() -> None:
    """The host has its declared address and its tags, its identity is in the store, and its metrics are written."""
    settings, name = hosts.settings(TailscaleSettings), str(host.name)
    wanted = tailnet.tags(name, host.groups)
    verify.answers(
        name="The address is the declared one",
        script=f"{client()} ip -4 | grep -Fx {address()}",
        seconds=60,
        problem=(
            f"{name} has another address in the tailnet than {address()}, which the inventory declares: give it that one on the control "
            "server (docs/tailscale.md), or write the one it has into the inventory."
        ),
    )
    verify.answers(
        name="The tags are those of the host's groups",
        script=f"{client()} status --json --peers=false | python3 -c {shlex.quote(TAGS)} {shlex.join(wanted)}",
        seconds=30,
        problem=f"{name} has other tags in the tailnet than {', '.join(wanted)}: set them on the control server ({settings.login_server}).",
    )
    kept(name="The identity is in the store")
    files(
        name="Metrics",
        entries=[
            File(METRICS, (ROOT / "services" / "tailnet_metrics.py").read_text(encoding="utf-8"), mode="755"),
            Directory(exporters.TEXTFILES),
            File(
                METRICS_UNIT,
                template("tailscale/phoenix-tailnet-metrics.service.j2", program=METRICS, client=client(), textfiles=exporters.TEXTFILES),
            ),
            File(METRICS_TIMER, template("tailscale/phoenix-tailnet-metrics.timer.j2")),
        ],
    )
    service(name="The tailnet is looked at", unit="phoenix-tailnet-metrics.timer", restart_on=[METRICS_TIMER, METRICS_UNIT])


TAGS = 'import json, sys; sys.exit(sorted(json.load(sys.stdin)["Self"].get("Tags") or []) != sys.argv[1:])'
"""Python program: whether the status on its input has just the tags that are its arguments, in their order."""


@operation()
def kept() -> Commands:
    """The store has the host's present identity. It is the control machine that changes, not the host."""
    name = identity_secret(str(host.name))
    found = host.get_fact(facts.Output, script=f"base64 -w0 {STATE}")
    if found.endswith(facts.FAILED) or not found:
        return
    if name not in hosts.secrets() or keys(base64.b64decode(hosts.secrets().get(name))) != keys(base64.b64decode(found)):
        findings.report(f"the store has not the present {name}")
        if context.state.is_executing:
            hosts.secrets().set(name, found)
    yield from ()


def keys(state: bytes) -> dict[str, Any]:
    """Of tailscaled's state what makes the host who it is: its machine key and, of each profile, the node's key."""
    try:
        content = json.loads(state)
    except ValueError:
        return {}
    found: dict[str, Any] = {"machine": content.get("_machinekey")}
    for profile, text in content.items():
        if profile.startswith("profile-"):
            config = json.loads(base64.b64decode(text)).get("Config") or {}
            found[profile] = config.get("PrivateNodeKey")
    return found
