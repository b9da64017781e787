"""Archives of classes: what a service's JVM made of its classes when it last read and checked them, so that its next start need not.

A service without one is started with a list of what it loads (`noted`, before its start). When it has done some of its work the archive is
made from the list (`archived`), while the service goes on and the deploy too: its next start has it. An archive fits one JVM and one set of
jars; where either is newer the JVM does without, and the next deploy makes it anew. docs/decisions/0615.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from pyinfra import host
from pyinfra.api import StringCommand, operation

from deploys.lib import facts, findings
from deploys.lib.operations import Commands

PACKAGES = ["openjdk-21-jre-headless"]
JAVA = "/usr/bin/java"
DIRECTORY = "/var/lib/phoenix-classes"


@dataclass(frozen=True)
class Jvm:
    """A service's JVM: its unit and user, the directory of its class path, its option for a garbage collector."""

    unit: str
    user: str
    jars: str
    collector: str = "-XX:+UseSerialGC"

    @property
    def archive(self) -> str:
        """Where its archive is; root's, so that the service cannot write it. A JVM that does not find it starts without."""
        return f"{DIRECTORY}/{self.unit}.jsa"

    @property
    def dropin(self) -> str:
        """What has the unit note its classes: there until it has an archive. A unit that is older than this is to be restarted."""
        return f"/run/systemd/system/{self.unit}.service.d/classes.conf"

    @property
    def making(self) -> str:
        """The unit that makes the archive."""
        return f"phoenix-classes-{self.unit}.service"

    @property
    def work(self) -> str:
        """The service's own directory, for its list."""
        return f"{DIRECTORY}/{self.unit}.work"

    def archived(self) -> bool:
        """Whether the archive is newer than the JVM and the jars, by the time at which they came to this host, or is being made."""
        judged = f"$(dirname $(readlink -f {JAVA}))/../lib/server/libjvm.so {self.jars}/.phoenix-digest"
        script = (
            f'systemctl -q is-active {self.making} || {{ test -s {self.archive} && test -z "$(find -L {judged} -cnewer {self.archive})"; }}'
        )
        return not host.get_fact(facts.Output, script=script).endswith(facts.FAILED)


@operation()
def noted(jvm: Jvm) -> Commands:
    """A service that has no archive of its classes will start with a list of them."""
    if jvm.archived() or not host.get_fact(facts.Output, script=f"test -e {jvm.dropin}").endswith(facts.FAILED):
        return
    findings.report(f"{jvm.unit} has no archive of its JVM's classes")
    work = jvm.work
    yield StringCommand(
        f"set -e; install -d -m 755 {DIRECTORY}; rm -rf {work}; install -d -m 700 -o {jvm.user} {work}; "
        f"install -d $(dirname {jvm.dropin}); cat >{jvm.dropin}; systemctl daemon-reload",
        _stdin=f"[Service]\nReadWritePaths={work}\nEnvironment=JDK_JAVA_OPTIONS=-XX:DumpLoadedClassList={work}/list\n",
    )


@operation()
def archived(jvm: Jvm, *, exercise: str = "true") -> Commands:
    """The archive of a service is there, of its present JVM and jars, or a unit makes it that gives way to everybody. The shell
    `exercise` first has the service do what belongs into the archive."""
    if jvm.archived():
        return
    findings.report(f"{jvm.unit} has no archive of its JVM's classes")
    work = jvm.work
    script = (
        # The service writes on, so the last line may be half of one; and a JVM writes longer lines than it reads.
        f"set -e; {exercise}; sed -e '$d' -e '/.\\{{4000\\}}/d' {work}/list >{work}/wanted; chmod 644 {work}/wanted; "
        # As the service's user: what it noted is not to be believed by root.
        f"runuser -u {jvm.user} -- {JAVA} -Xshare:dump {jvm.collector} -XX:SharedClassListFile={work}/wanted "
        f"-XX:SharedArchiveFile={work}/new -Xlog:disable -Xlog:all=error:stderr -cp '{jvm.jars}/*' >/dev/null; "
        f"install -m 644 {work}/new {jvm.archive}.new; mv {jvm.archive}.new {jvm.archive}; "
        f"rm -f {jvm.dropin}; systemctl daemon-reload; rm -rf {work}"
    )
    yield f"systemctl reset-failed {jvm.making} 2>/dev/null; true"
    shown = f"--description='Phoenix: archive of the classes of {jvm.unit}'"
    yield f"systemd-run --quiet --unit={jvm.making} {shown} -p Nice=10 -p CPUWeight=10 -p OOMScoreAdjust=900 -- sh -c {shlex.quote(script)}"
