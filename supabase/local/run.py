"""`make run`: the embedded Supabase, the API, the worker and the streams under one supervisor, ended by one Ctrl-C."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from environment import ENV_FILE, prepare_environment
from honcho.environ import parse_procfile
from honcho.manager import SYSTEM_PRINTER_NAME, Manager
from honcho.printer import Printer
from node import InstallError, install_modules
from ports import is_taken
from stack import LOCAL_DIR, ROOT, StackError

PROCFILE = ROOT / "Procfile.dev"
WELCOME = "welcome"
PORTS = ("PORT", "STREAMS_PORT", "SUPABASE_PORT")


class Console(Printer):  # type: ignore[misc]  # honcho is untyped
    """Prints what the processes print; the supervisor's own chatter it keeps, for `supervise` to judge by."""

    def __init__(self, output: TextIO) -> None:
        super().__init__(output)
        self.started = 0
        self.on_start: Callable[[], None] = lambda: None
        self.told_to_end = False
        self.first_stopped: str | None = None

    def write(self, message: Any) -> None:
        """Print one message: a process's line behind its name, the welcome as it is."""
        if message.name == SYSTEM_PRINTER_NAME:
            self._note(str(message.data))
        elif message.name == WELCOME:
            print(message.data.decode(errors="replace"), end="", file=self.output, flush=True)
        else:
            super().write(message)

    def _note(self, event: str) -> None:
        name, _, what = event.strip().partition(" ")
        if what.startswith("started"):
            self.started += 1
            self.on_start()
        elif what == "received" and self.first_stopped is None:
            self.told_to_end = True
        elif what.startswith("stopped") and self.first_stopped is None:
            self.first_stopped = f"{name} {what.replace('(rc=', '(exit code ')}"


class Supervisor(Manager):  # type: ignore[misc]  # honcho is untyped
    """honcho's manager fails when it is told to end before each process has reported its start: this one waits."""

    def __init__(self, console: Console, process_count: int) -> None:
        super().__init__(console)
        self._console = console
        self._process_count = process_count
        self._is_due = False
        console.on_start = self._end_if_due

    def terminate(self) -> None:
        """End all processes: now, or as soon as all have started."""
        self._is_due = True
        self._end_if_due()

    def _end_if_due(self) -> None:
        if self._is_due and self._console.started == self._process_count:
            super().terminate()


def main() -> int:
    """Run everything until it is told to end (0) or a process dies (1)."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A closed terminal: honcho knows SIGINT and SIGTERM only.
    signal.signal(signal.SIGHUP, lambda _signum, _frame: os.kill(os.getpid(), signal.SIGTERM))
    try:
        environment = prepare_environment(ENV_FILE, os.environ)
        _refuse_taken_ports(environment)
        _install()
        with _terminal_to_ourselves():
            return supervise(PROCFILE, environment)
    except (StackError, InstallError) as error:
        print(f"make run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def supervise(procfile: Path, environment: Mapping[str, str]) -> int:
    """Run the processes of `procfile`, and the one that welcomes; return the exit code for the shell."""
    processes = {**parse_procfile(procfile.read_text()).processes, WELCOME: "exec python supabase/local/welcome.py"}
    console = Console(sys.stdout)
    supervisor = Supervisor(console, len(processes))
    for name, command in processes.items():
        supervisor.add_process(name, command, env=_child_environment(environment), cwd=str(ROOT))
    supervisor.loop()
    if console.told_to_end:
        print("Stopped. The data are kept for the next `make run`; `make reset` drops them.", flush=True)
        return 0
    print(f"make run: {console.first_stopped}, so everything was stopped", file=sys.stderr)
    return 1


def _child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    path = environment.get("PATH", os.defpath)
    return {**environment, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{path}", "PYTHONUNBUFFERED": "1"}


def _refuse_taken_ports(environment: Mapping[str, str]) -> None:
    for name in PORTS:
        port = int(environment[name])
        if is_taken(port):
            raise StackError(f"port {port} is taken: stop what listens there, or choose another with {name}=…")
    if len({environment[name] for name in PORTS}) < len(PORTS):
        raise StackError(f"{', '.join(PORTS)} must be different ports")


def _install() -> None:
    LOCAL_DIR.mkdir(mode=0o700, exist_ok=True)
    if install_modules():
        print("Installed the embedded Supabase.", flush=True)


@contextmanager
def _terminal_to_ourselves() -> Iterator[None]:
    """Take the terminal's Ctrl-C away from `make`, which would end with an error of its own, for as long as we run.

    Without a terminal nothing changes. Ctrl-Z is switched off: it would stop us and leave the shell waiting.
    """
    if not (sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp() != os.getpid()):
        yield
        return
    terminal, group = sys.stdin.fileno(), os.getpgrp()
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    signal.signal(signal.SIGTSTP, lambda _signum, _frame: None)
    os.setpgid(0, 0)
    os.tcsetpgrp(terminal, os.getpgrp())
    try:
        yield
    finally:
        os.tcsetpgrp(terminal, group)


if __name__ == "__main__":
    sys.exit(main())
