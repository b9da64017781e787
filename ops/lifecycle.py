"""up, down: the lab from nothing to a verified platform, and away again."""

from __future__ import annotations

import argparse
import time

import lab
from deploys.lib import generated
from deploys.lib.secrets import SecretStore
from deploys.lib.settings import Platform, shown
from ops import deploy, inventory, status, verify
from ops.errors import DONE, Failed, Refused
from ops.steps import Steps
from ops.terminal import Terminal, seconds

NEXT_STEPS = (
    ("./phoenix seed", "believable data to look at"),
    ("./phoenix psql", "the database"),
    ("./phoenix deploy", "after you changed a setting in inventory/"),
)


def arguments(verb: str, parser: argparse.ArgumentParser) -> None:
    """What the verbs take."""
    if verb == "up":
        parser.add_argument("--fresh", action="store_true", help="throw the machines' disks away first")
        parser.add_argument("--skip-verify", action="store_true", help="leave out the tests at the end")
    else:
        parser.add_argument("--yes", action="store_true", help="do not ask")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Do the verb of `options`."""
    try:
        if options.verb == "up":
            return up(options, terminal)
        return down(options, terminal)
    except lab.LabRefused as error:
        raise Refused(str(error)) from error
    except lab.LabError as error:
        raise Failed(str(error)) from error


def up(options: argparse.Namespace, terminal: Terminal) -> int:
    """Machines, deploy, verification; then the addresses and what to do next."""
    names = lab_machines(inventory.read(options.inventory))
    steps = Steps(terminal)
    with steps.step("machines"):
        lab.up(names, fresh=options.fresh, progress=terminal.say)
    platform = inventory.read(options.inventory)  # again: the lab's key exists only now
    with steps.step("deploy"):
        _keep_secrets(platform)
        result = deploy.perform(platform, [], terminal)
        if not result.ok:
            raise deploy.as_error(result)
    if not options.skip_verify:
        with steps.step("verify"):
            found = verify.perform(options.inventory, terminal, quick=True)
            if not found.ok:
                raise Failed(f"promises are broken ({found.failed}): see above, and './phoenix status'.")
    with steps.step("status"):
        health = status.ask(platform, list(platform.hosts.values()))
    ok = all(service.ok for service in health)
    terminal.result(
        {
            "ok": ok,
            "seconds": round(steps.total, 2),
            "changed": result.changed,
            "steps": steps.as_list(),
            "services": [service.as_dict() for service in health],
        }
    )
    status.show(health, terminal)
    terminal.line("")
    terminal.table(["step", "time"], steps.rows())
    if not ok:
        raise Failed("not every service is well: see the table, and './phoenix logs SERVICE'.")
    terminal.line("")
    for words, what in NEXT_STEPS:
        terminal.line(f"  {words:20}{what}")
    return DONE


def down(options: argparse.Namespace, terminal: Terminal) -> int:
    """Remove the lab, its data and its secrets; the download cache stays."""
    if options.inventory != inventory.DEFAULT:  # with the lab's own, down works even when the inventory does not
        lab_machines(inventory.read(options.inventory))
    if not options.yes:
        present = [machine.name for machine in lab.status() if machine.state != "absent"]
        what = f"the machines {', '.join(present)} with all their data" if present else "what is left of the lab"
        terminal.confirm(f"This removes {what}, and the lab's secrets.")
    started = time.monotonic()
    lab.down(progress=terminal.say)
    took = time.monotonic() - started
    terminal.result({"ok": True, "seconds": round(took, 2)})
    terminal.line(f"The lab is gone ({seconds(took)}); downloads stay in {lab.paths.cache}.", "green")
    return DONE


def lab_machines(platform: Platform) -> list[str]:
    """The inventory's hosts, when all of them are machines of the lab. Raises Refused for anybody's real hosts."""
    this = lab.Lab.from_environment()
    addresses = {machine.name: this.address(machine) for machine in this.machines}
    others = [name for name, host in platform.hosts.items() if addresses.get(name) != host.data.get("ssh_hostname")]
    if others:
        raise Refused(
            f"{', '.join(others)} in {shown(platform.inventory)} is no machine of the lab, and only those are made and "
            f"removed here: use './phoenix deploy -i {shown(platform.inventory)}'."
        )
    return list(platform.hosts)


def _keep_secrets(platform: Platform) -> None:
    """The lab makes its own secrets, readable by this computer's root alone, and forgets them with the lab."""
    path = platform.secrets_file
    store = SecretStore.load(path) if path.exists() else SecretStore.create(path, recipients=[])
    generated.ensure(store)
