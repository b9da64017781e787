"""Which Debian mirror this computer uses, read from its own apt sources, and what to take from it for the lab."""

from __future__ import annotations

import os
import re
import shlex
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab import shell
from lab.errors import LabError

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_SUFFIXES = ("", "-updates", "-security")
# What describes the way from here to the mirror, not a person's taste: a machine behind the same proxy or the same
# frozen mirror needs these too.
_TRANSPORT = re.compile(r'^Acquire::(?:https?::(?:Proxy|Verify-Peer|Verify-Host)|Check-Valid-Until|Check-Date)(?:::[^ ]+)? "[^"]*";$')


@dataclass(frozen=True)
class Source:
    """One archive: `deb URI SUITE COMPONENTS`."""

    uri: str
    suite: str
    components: tuple[str, ...]

    def one_line(self) -> str:
        """The entry in apt's one-line format, trusting Debian's own keys only."""
        return f"deb [signed-by={KEYRING}] {self.uri} {self.suite} {' '.join(self.components)}"


def parse_one_line(text: str) -> list[Source]:
    """The binary archives of a sources.list file. Lines that are not `deb`, and flat repositories, are passed over."""
    found = []
    for line in text.splitlines():
        match = re.match(r"^\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)((?:\s+[^#\s]+)+)", line)
        if match:
            found.append(Source(match[1].rstrip("/"), match[2], tuple(match[3].split())))
    return found


def parse_deb822(text: str) -> list[Source]:
    """The binary archives of a .sources file. Stanzas that are disabled or have source packages only are passed over."""
    found = []
    for stanza in re.split(r"\n\s*\n", re.sub(r"(?m)^[ \t]*#.*\n?", "", text + "\n")):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t") and key:
                fields[key] += " " + line.strip()
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        found += [
            Source(uri.rstrip("/"), suite, tuple(fields.get("components", "").split()))
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
        ]
    return found


def parse_mirror_list(text: str) -> list[str]:
    """The addresses in a file that a `mirror+file:` source points to (the form of Debian's cloud images)."""
    words = (line.partition("#")[0].split() for line in text.splitlines())
    return [found[0].rstrip("/") for found in words if found]


def for_suite(sources: Iterable[Source], host_suites: Iterable[str], suite: str) -> list[Source]:
    """What of `sources` follows this computer's own Debian, for `suite` instead.

    `host_suites` are the names of the release this computer runs (`bookworm`, `stable`, …). Only `main`, only http and
    https, and at most one archive for each of the suite, its updates and its security updates and address.
    """
    found: dict[tuple[str, str], Source] = {}
    for source in sources:
        for host_suite in host_suites:
            ending = source.suite[len(host_suite) :]
            if source.suite.startswith(host_suite) and ending in _SUFFIXES:
                if "main" in source.components and source.uri.startswith(("http://", "https://")):
                    wanted = Source(source.uri, suite + ending, ("main",))
                    found.setdefault((wanted.uri, wanted.suite), wanted)
                break
    return sorted(found.values(), key=lambda source: _SUFFIXES.index(source.suite[len(suite) :]))


def read_sources(apt_dir: Path = Path("/etc/apt")) -> list[Source]:
    """All binary archives in this computer's apt sources, `mirror+file:` lists replaced by the addresses in them."""
    files = [apt_dir / "sources.list", *sorted((apt_dir / "sources.list.d").glob("*"))]
    read: list[Source] = []
    for file in files:
        if file.is_file() and file.suffix in (".list", ".sources"):
            text = file.read_text(errors="replace")
            read += parse_deb822(text) if file.suffix == ".sources" else parse_one_line(text)
    resolved: list[Source] = []
    for source in read:
        if source.uri.startswith("mirror+file:"):
            listed = Path("/" + source.uri.removeprefix("mirror+file:").lstrip("/"))
            uris = parse_mirror_list(listed.read_text()) if listed.is_file() else []
            resolved += [Source(uri, source.suite, source.components) for uri in uris]
        else:
            resolved.append(source)
    return resolved


def host_suites(os_release: str) -> list[str]:
    """The names that the sources may use for the release in `os_release` (the text of /etc/os-release)."""
    fields = dict(part.split("=", 1) for part in shlex.split(os_release) if "=" in part)
    codename = fields.get("VERSION_CODENAME", "")
    return [name for name in (codename, "oldstable", "stable", "testing") if name]


def transport_settings() -> str:
    """The settings of this computer's apt that tell how the mirror is reached (proxy, frozen mirror), for an apt.conf."""
    dump = shell.run(["apt-config", "dump"]).stdout
    lines = [line for line in dump.splitlines() if _TRANSPORT.match(line) and not line.endswith(' "";')]
    for scheme in ("http", "https"):
        proxy = os.environ.get(f"{scheme}_proxy")
        if proxy and not any(line.startswith(f"Acquire::{scheme}::Proxy ") for line in lines):
            lines.append(f'Acquire::{scheme}::Proxy "{proxy}";')
    return "".join(f"{line}\n" for line in lines)


def seen_from_machine(text: str, gateway: str) -> str:
    """`text` with addresses that mean this computer itself replaced by `gateway`, its address in the lab's network."""
    return re.sub(r'//(?:localhost|127\.0\.0\.1|\[::1\])(?=[:/"]|$)', f"//{gateway}", text)


def discover(suite: str) -> list[Source]:
    """The archives of `suite` on this computer's own mirror that answer and are Debian's: the suite, updates, security.

    Raises LabError when there is none for the suite itself.
    """
    wanted = for_suite(read_sources(), host_suites(Path("/etc/os-release").read_text()), suite)
    if not any(source.suite == suite for source in wanted):
        raise LabError(
            "/etc/apt: no Debian archive over http or https in this computer's apt sources: "
            "add Debian's main archive there, the lab takes its mirror from it"
        )
    opener = _opener()
    found: dict[str, Source] = {}
    for source in wanted:
        if source.suite in found:
            continue
        fault = _fault(source, opener)
        if not fault:
            found[source.suite] = source
        elif source.suite == suite and source == [other for other in wanted if other.suite == suite][-1]:
            raise LabError(f"{fault}: mend this computer's network or its apt sources and try again")
    return list(found.values())


def _fault(source: Source, opener: urllib.request.OpenerDirector) -> str:
    """Why `source` cannot be used, or nothing."""
    try:
        with opener.open(f"{source.uri}/dists/{source.suite}/InRelease", timeout=15) as answer:
            head = answer.read(4096).decode(errors="replace")
    except (OSError, ValueError) as error:
        return f"{source.uri}: this mirror does not give {source.suite} ({getattr(error, 'reason', error)})"
    return "" if "\nOrigin: Debian\n" in head else f"{source.uri}: is not Debian's archive"


def _opener() -> urllib.request.OpenerDirector:
    # apt's own proxy settings win over the environment's, as they do for apt itself.
    proxies = urllib.request.getproxies()
    for scheme in ("http", "https"):
        said = shell.run(["apt-config", "shell", "PROXY", f"Acquire::{scheme}::Proxy"]).stdout.strip()
        proxy = shlex.split(said)[0].partition("=")[2] if said else ""
        if proxy == "DIRECT":
            proxies.pop(scheme, None)
        elif proxy:
            proxies[scheme] = proxy
    return urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
