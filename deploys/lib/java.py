"""Archives of classes: what a service's JVM made of its classes when it last read and checked them, so that its next start need not.

A service without one is started with a list of what it loads (`noted`, before its start). When it has done some of its work the archive is
made from the list (`archived`), while the service goes on: its next start has it. An archive fits one JVM and one set of jars; where either
is newer the JVM does without, and the next deploy makes it anew. docs/decisions/0615.
"""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import StringCommand, operation

from deploys.lib import facts, findings
from deploys.lib.operations import Commands

PACKAGES = ["openjdk-21-jre-headless"]
JAVA = "/usr/bin/java"
DIRECTORY = "/var/lib/phoenix-classes"


def archive(unit: str) -> str:
    """Where the archive of a unit's JVM is; root's, so that the service cannot write it. A JVM that does not find it starts without."""
    return f"{DIRECTORY}/{unit}.jsa"


def dropin(unit: str) -> str:
    """What has a unit note its classes: there until it has an archive. A unit that is older than this is to be restarted."""
    return f"/run/systemd/system/{unit}.service.d/classes.conf"


def _work(unit: str) -> str:
    return f"{DIRECTORY}/{unit}.work"


def _fits(unit: str, jars: str) -> bool:
    """Whether the archive is newer than the JVM and the jars, by the time at which they came to this host."""
    judged = f"$(dirname $(readlink -f {JAVA}))/../lib/server/libjvm.so {jars}/.phoenix-digest"
    script = f'test -s {archive(unit)} && test -z "$(find -L {judged} -cnewer {archive(unit)})"'
    return not host.get_fact(facts.Output, script=script).endswith(facts.FAILED)


@operation()
def noted(unit: str, *, user: str, jars: str) -> Commands:
    """A service that has no archive of its classes will start with a list of them. `jars` is the directory of its class path."""
    if _fits(unit, jars) or not host.get_fact(facts.Output, script=f"test -e {dropin(unit)}").endswith(facts.FAILED):
        return
    findings.report(f"{unit} has no archive of its JVM's classes")
    work = _work(unit)
    yield StringCommand(
        f"set -e; install -d -m 755 {DIRECTORY}; rm -rf {work}; install -d -m 700 -o {user} {work}; "
        f"install -d $(dirname {dropin(unit)}); cat >{dropin(unit)}; systemctl daemon-reload",
        _stdin=f"[Service]\nReadWritePaths={work}\nEnvironment=JDK_JAVA_OPTIONS=-XX:DumpLoadedClassList={work}/list\n",
    )


@operation()
def archived(unit: str, *, user: str, jars: str, collector: str, exercise: str = "true") -> Commands:
    """The archive of a service is there, of its present JVM and jars. `collector` is its JVM's option for a garbage collector; the shell
    `exercise` first has the service do what belongs into the archive."""
    if _fits(unit, jars):
        return
    findings.report(f"{unit} has no archive of its JVM's classes")
    work = _work(unit)
    yield (
        # The service writes on, so the last line may be half of one; and a JVM writes longer lines than it reads.
        f"set -e; {exercise}; sed -e '$d' -e '/.\\{{4000\\}}/d' {work}/list >{work}/wanted; chmod 644 {work}/wanted; "
        # As the service's user: what it noted is not to be believed by root.
        f"runuser -u {user} -- {JAVA} -Xshare:dump {collector} -XX:SharedClassListFile={work}/wanted -XX:SharedArchiveFile={work}/new "
        f"-Xlog:disable -Xlog:all=error:stderr -cp '{jars}/*' >/dev/null; "
        f"install -m 644 {work}/new {archive(unit)}.new; mv {archive(unit)}.new {archive(unit)}; "
        f"rm -f {dropin(unit)}; systemctl daemon-reload; rm -rf {work}"
    )
