"""Makes the project's Python environment (.venv) from uv.lock; the standard library is all there is at this point.

The steps, each skipped when already done: a private virtual environment in the cache holding pip and the pinned uv;
.venv made by this very Python; exactly the packages of uv.lock in it, checked against their hashes. A marker file says
what .venv was made from, so that a start with nothing to do costs one read and one hash.

`./phoenix` runs the command this way; `python3 ops/bootstrap.py MODULE ARGUMENTS` runs another module (see Makefile).
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing itself would cost a third of the start
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# One version for everybody, checked by hash, for the two processors Phoenix runs on.
UV_REQUIREMENT = (
    "uv==0.13.9"
    " --hash=sha256:d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19"  # x86_64
    " --hash=sha256:5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe"  # aarch64
    " --hash=sha256:ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375"  # aarch64, newer glibc
)


class BootstrapError(Exception):
    """The environment cannot be made; the message names the thing, the reason and the next step."""


def run(root: str, arguments: list[str], module: str = "ops") -> None:
    """Replace this process by `python -m MODULE ARGUMENTS` in an up-to-date .venv. Exit 1 when it cannot be made."""
    try:
        python = environment(root)
    except BootstrapError as error:
        sys.exit(f"phoenix: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    # -P keeps a file called ops.py in the caller's directory from being taken for ours; PYTHONPATH lets every program
    # started from here (pyinfra, pytest) find the project wherever it was called from.
    command = [python, "-P", "-m", module, *arguments]
    os.execve(python, command, {**os.environ, "PYTHONPATH": root})  # noqa: S606 - a list, no shell


def environment(root: str) -> str:
    """The Python of `root`/.venv, brought up to date with uv.lock first. Raises BootstrapError."""
    python = f"{root}/.venv/bin/python"
    wanted = _fingerprint(root)
    if not _is_fresh(root, wanted):
        _prepare(root, wanted)
    return python


def cache_dir() -> Path:
    """Where downloads are kept: PHOENIX_CACHE, /var/cache/phoenix for root, else the user's own cache directory."""
    from pathlib import Path  # noqa: PLC0415 - the quick start above does without it

    if chosen := os.environ.get("PHOENIX_CACHE"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/var/cache/phoenix")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "phoenix"


def installer(cache: Path) -> Path:
    """A virtual environment in `cache` with `bin/python -m pip` and `bin/uv` (pinned), made when it is not there."""
    import shutil  # noqa: PLC0415 - as above
    import venv  # noqa: PLC0415

    version = UV_REQUIREMENT.split(maxsplit=1)[0].replace("==", "-")
    directory = cache / "tools" / f"{version}-py{sys.version_info[0]}.{sys.version_info[1]}"
    done = directory / ".complete"
    if done.exists() and (directory / "bin" / "python").exists():
        return directory
    with locked(cache / "tools"):
        if done.exists() and (directory / "bin" / "python").exists():
            return directory
        _need_ensurepip()
        shutil.rmtree(directory, ignore_errors=True)
        # A virtual environment's parent may itself be one: the base interpreter outlives both.
        venv.EnvBuilder(with_pip=True, symlinks=True).create(directory)
        requirements = directory / "uv.txt"
        requirements.write_text(UV_REQUIREMENT + "\n")
        pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        call(
            [*pip, "--require-hashes", "--only-binary=:all:", "-r", str(requirements)],
            failing="uv, which installs the Python packages, could not be fetched",
        )
        done.touch()
    return directory


def uv_environment(tools: Path, cache: Path) -> dict[str, str]:
    """Environment for uv: our cache, the system's certificates, no other Python, and the mirror pip was told to use."""
    import ast  # noqa: PLC0415 - as above
    import subprocess  # noqa: PLC0415

    settings = {
        "UV_CACHE_DIR": str(cache / "uv"),
        "UV_SYSTEM_CERTS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
    }
    listed = subprocess.run(
        [str(tools / "bin" / "python"), "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    # Lines like global.index-url='https://…' or :env:.find-links='/mirror'; the environment comes first and wins here
    # by being applied last.
    pip: dict[str, str] = {}
    for line in reversed(listed.splitlines()):
        key, _, value = line.partition("=")
        pip[key.rpartition(".")[2]] = str(ast.literal_eval(value))
    settings |= _mirror(pip)
    environment = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "UV_PROJECT"}}
    return settings | environment


def call(command: list[str], *, failing: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run `command`, return its stdout. Raises BootstrapError with `failing` and the reason it gave."""
    import subprocess  # noqa: PLC0415 - as above

    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=cwd)
    except OSError as error:
        raise BootstrapError(f"{failing}: {command[0]}: {error.strerror}; remove {cache_dir()}/tools.") from error
    if done.returncode != 0:
        raise BootstrapError(f"{failing}: {_reason(done.stderr or done.stdout)} {_next_step(done.stderr)}")
    return done.stdout


LOCK_PAUSE_S = 0.1


def locked(directory: Path) -> _Lock:
    """Hold `directory` for ourselves while the `with` lasts, waiting for who has it now, another process or another host of this run."""
    directory.mkdir(parents=True, exist_ok=True)
    return _Lock(str(directory))


class _Lock:
    """flock on a directory: needs no file of its own, and the kernel lets go when the process dies."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._descriptor = -1

    def __enter__(self) -> None:
        import fcntl  # noqa: PLC0415 - as above
        import time  # noqa: PLC0415

        self._descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        # Asked again and again: a deploy's hosts are green threads of one process, and one that slept in the kernel would stop them all,
        # among them the one that holds the lock.
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(LOCK_PAUSE_S)
            else:
                return

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _fingerprint(root: str) -> str:
    """What .venv is made from: the lock, the metadata of our own programs, this recipe and the Python."""
    import hashlib  # noqa: PLC0415 - not needed by those who import this module for the rest

    digest = hashlib.sha256()
    for name in ("uv.lock", "exporters/pyproject.toml", "services/pyproject.toml", "ops/bootstrap.py"):
        try:
            with open(f"{root}/{name}", "rb") as file:  # noqa: PTH123 - pathlib alone would double the start time
                digest.update(file.read())
        except FileNotFoundError:
            raise BootstrapError(f"{root}/{name} is missing, the checkout is not whole: get it again.") from None
    return f"{digest.hexdigest()} python {sys.version.split(maxsplit=1)[0]}\n"


def _is_fresh(root: str, wanted: str) -> bool:
    try:
        with open(f"{root}/.venv/.phoenix") as file:  # noqa: PTH123 - as above
            return file.read() == wanted and os.path.exists(f"{root}/.venv/bin/python")  # noqa: PTH110 - as above
    except FileNotFoundError:
        return False


def _prepare(root: str, wanted: str) -> None:
    import time  # noqa: PLC0415 - as above
    from pathlib import Path  # noqa: PLC0415

    checkout, cache = Path(root), cache_dir()
    started = time.monotonic()
    with locked(checkout):
        if _is_fresh(root, wanted):  # another process did it while this one waited
            return
        print("Preparing the Python environment from uv.lock ...", file=sys.stderr)
        try:
            tools = installer(cache)
        except OSError as error:
            raise BootstrapError(f"{cache} cannot be the cache ({error.strerror}): set PHOENIX_CACHE to a writable directory.") from error
        try:
            _install(checkout, tools, uv_environment(tools, cache))
            (checkout / ".venv" / ".phoenix").write_text(wanted)
        except OSError as error:
            raise BootstrapError(f"{checkout}/.venv cannot be made ({error.strerror}): make the checkout writable.") from error
        print(f"... ready after {time.monotonic() - started:.1f} s.", file=sys.stderr)


def _install(checkout: Path, tools: Path, env: Mapping[str, str]) -> None:
    """Exactly the packages of uv.lock, and our own programs from their source, into `checkout`/.venv."""
    import shutil  # noqa: PLC0415 - as above

    uv, venv = str(tools / "bin" / "uv"), checkout / ".venv"
    (venv / ".phoenix").unlink(missing_ok=True)  # not fresh any more, however this ends
    failing = "the Python packages of uv.lock could not be installed"
    if not _runs_this_python(venv):
        shutil.rmtree(venv, ignore_errors=True)
        call([uv, "venv", "--quiet", "--python", sys.executable, str(venv)], failing=failing, env=env)
    packages = call(
        [uv, "export", "--frozen", "--all-groups", "--no-emit-workspace", "--no-header", "--no-annotate"],
        failing="uv.lock could not be read",
        env=env,
        cwd=checkout,
    )
    requirements = venv / "requirements.txt"
    requirements.write_text(packages)
    target = ["--quiet", "--python", str(venv / "bin" / "python")]
    # Compiled once, here: a caller may keep Python from writing bytecode, and each start would compile all of it again.
    sync = [uv, "pip", "sync", *target, "--compile-bytecode", "--require-hashes", "--only-binary=:all:", str(requirements)]
    call(sync, failing=failing, env=env)
    for member in ("exporters", "services"):
        own = [uv, "pip", "install", *target, "--no-deps", "--editable", str(checkout / member)]
        call(own, failing=f"the program in {member}/ could not be installed", env=env, cwd=checkout)


def _runs_this_python(venv: Path) -> bool:
    """Whether `venv` belongs to the version of Python that runs now (a Debian upgrade changes it underneath)."""
    config = venv / "pyvenv.cfg"
    if not config.exists() or not (venv / "bin" / "python").exists():
        return False
    version = sys.version.split(maxsplit=1)[0]
    lines = (line.partition("=") for line in config.read_text().splitlines())
    return any(key.strip() in {"version", "version_info"} and value.strip() == version for key, _, value in lines)


def _need_ensurepip() -> None:
    """Debian's python3 comes without what `venv` needs: get it when we may, else say how."""
    import importlib.util  # noqa: PLC0415 - as above
    import shutil  # noqa: PLC0415

    def missing() -> bool:
        importlib.invalidate_caches()
        return importlib.util.find_spec("ensurepip") is None

    if not missing():
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BootstrapError("Python's venv is incomplete: run 'apt-get install python3-venv' as root, then try again.")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    failing = "python3-venv could not be installed"
    install = ["apt-get", "install", "-qq", "--yes", "--no-install-recommends", "python3-venv"]
    call(["apt-get", "update", "-qq"], failing=failing, env=env)
    call(install, failing=failing, env=env)
    if missing():
        raise BootstrapError(f"{sys.executable} has no ensurepip: run ./phoenix with Debian's own /usr/bin/python3.")


def _mirror(pip: Mapping[str, str]) -> dict[str, str]:
    """uv's variables for what pip is configured with: {option: value} as `pip config list` shows them."""
    settings = {}
    if index := pip.get("index-url"):
        settings["UV_DEFAULT_INDEX"] = index
    if extra := pip.get("extra-index-url"):
        settings["UV_INDEX"] = " ".join(extra.split())
    if pip.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
        settings["UV_NO_INDEX"] = "1"
    links = [place for place in pip.get("find-links", "").split() if "://" in place or os.path.isdir(place)]  # noqa: PTH112
    if links:
        settings["UV_FIND_LINKS"] = ",".join(links)
    return settings


def _reason(output: str) -> str:
    """The one line of a tool's error output that says why, without its decoration."""
    lines = [line.strip(" \t│×╰─▶├·") for line in output.splitlines()]  # noqa: RUF001 - uv draws with it
    lines = [line for line in lines if line]
    telling = [line for line in lines if line.lower().startswith(("error:", "caused by:", "e:", "failed"))]
    return ((telling or lines or ["it gave no reason"])[-1]).rstrip(".") + "."


def _next_step(output: str) -> str:
    text = output.lower()
    if "no space left" in text:
        return "Free some space, then run the same command again."
    if any(word in text for word in ("dns", "connect", "timed out", "resolve", "network", "index", "retries")):
        return "Check this machine's network (or the mirror in pip's configuration), then run the same command again."
    return "Mend that, then run the same command again."


if __name__ == "__main__":
    if len(sys.argv) < 2:  # a module's name is the least
        sys.exit("phoenix: ops/bootstrap.py needs the name of a module to run: see Makefile.")
    run(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), sys.argv[2:], sys.argv[1])  # noqa: PTH100, PTH120
