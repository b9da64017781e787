"""Archives of classes: what a service's JVM made of its classes when it last read and checked them, so that its next start need not.

Each is made by a deploy, out of a start that notes what it loads, and lies where the service can read it and not write it. It fits one JVM
and one set of jars: where either is newer the JVM does without it, and the next deploy makes it anew. docs/decisions/0615.
"""

from __future__ import annotations

import shlex

from pyinfra import host
from pyinfra.api import StringCommand, operation

from deploys.lib import facts, findings
from deploys.lib.operations import Commands

PACKAGES = ["openjdk-21-jre-headless"]
JAVA = "/usr/bin/java"
DIRECTORY = "/var/lib/phoenix-classes"


def archive(unit: str) -> str:
    """Where the archive of a unit's JVM is. A JVM that is told of one that is not there starts without."""
    return f"{DIRECTORY}/{unit}.jsa"


@operation()
def archived(unit: str, *, user: str, jars: str, collector: str, ready: str, seconds: int, exercise: str = "true") -> Commands:
    """The archive of `unit` is there, and of its present JVM and jars. Making it takes the service down twice, for a moment each.

    `jars` is the unit's class path, `directory/*`, and `collector` its JVM's option for a garbage collector. The shell `ready` succeeds
    when the service serves, within `seconds`; `exercise` then has it do what belongs into the archive as well.
    """
    file = archive(unit)
    # Newer: by the time at which it came to this host, not by that of its making.
    judged = f"$(dirname $(readlink -f {JAVA}))/../lib/server/libjvm.so {jars.removesuffix('/*')}/.phoenix-digest"
    fits = f'test -s {file} && test -z "$(find -L {judged} -cnewer {file})"'
    if not host.get_fact(facts.Output, script=fits).endswith(facts.FAILED):
        return
    findings.report(f"{unit} has no archive of its JVM's classes")
    late = f"{unit} does not serve within {seconds} s while its classes are noted: look at 'journalctl -u {unit}' on {host.name}."
    serves = (
        f"end=$(($(date +%s) + {seconds})); until {{ {ready}; }} >/dev/null 2>&1; do "
        f"test $(date +%s) -lt $end || {{ echo {shlex.quote(late)} >&2; exit 1; }}; sleep 0.5; done"
    )
    work, dropin = f"{DIRECTORY}/{unit}.work", f"/run/systemd/system/{unit}.service.d"
    yield StringCommand(
        f"set -e; install -d -m 755 {DIRECTORY}; rm -rf {work}; install -d -m 700 -o {user} {work}; install -d {dropin}; "
        f"trap 'rm -rf {dropin}/classes.conf {work}; systemctl daemon-reload; systemctl start {unit}' EXIT; "
        f"cat >{dropin}/classes.conf; systemctl daemon-reload; systemctl restart {unit}; "
        f"{serves}; {exercise}; systemctl stop {unit}; "
        # The JVM writes longer lines than it reads. As the service's user: what it noted is not to be believed by root.
        f"sed -i '/.\\{{4000\\}}/d' {work}/list; "
        f"runuser -u {user} -- {JAVA} -Xshare:dump {collector} -XX:SharedClassListFile={work}/list -XX:SharedArchiveFile={work}/new "
        f"-Xlog:disable -Xlog:all=error:stderr -cp '{jars}' >/dev/null; install -m 644 {work}/new {file}.new; mv {file}.new {file}; "
        f"rm -rf {dropin}/classes.conf; systemctl daemon-reload; systemctl start {unit}; {serves}",
        _stdin=f"[Service]\nReadWritePaths={work}\nEnvironment=JDK_JAVA_OPTIONS=-XX:DumpLoadedClassList={work}/list\n",
    )
