"""Tocsin's configuration as code: `python -m server.cli --help`. Plans go to stdout, progress and complaints to stderr.

Exit codes: 0 it is as the file says (or was only looked at), 1 something is wrong or was not done, 2 there is something
to do (`--dry-run --detailed-exitcode`), 130 interrupted.
"""

import argparse
import os
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

from server.cli.applying import Failure, KeepSecret, carry_out
from server.cli.client import Api, Refused
from server.cli.documents import Problem, UnusableFile, write_document
from server.cli.exporting import export
from server.cli.fetching import fetch, fetch_everything, name_organisation
from server.cli.kuma import Converted, NotABackup, convert, read_backup
from server.cli.planning import Action, ImpossiblePlan, Plan, Step, make_plan
from server.cli.printing import (
    describe_failures,
    describe_outcome,
    describe_plan,
    describe_problem,
    describe_progress,
    visible,
)
from server.cli.reading import read_desired
from server.cli.resources import Section
from server.settings import SettingsError, load_variables, read_client_settings

EXIT_NOT_DONE = 1
EXIT_SOMETHING_TO_DO = 2
EXIT_INTERRUPTED = 130


class Stop(Exception):
    """The command ends here, and this is why."""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints end with 1: 2 says that there is something to do."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_NOT_DONE, f"{self.prog}: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    """Run one command, and return its exit code."""
    options = make_parser().parse_args(arguments)
    env = dict(load_variables())
    env |= {name: value for name, value in (("TOCSIN_URL", options.url), ("TOCSIN_API_KEY", options.api_key)) if value}
    try:
        code: int = options.run(options, env)
        return code
    except (Stop, SettingsError, Refused) as error:
        say("\n".join(error.problems) if isinstance(error, SettingsError) else str(error))
    except (UnusableFile, ImpossiblePlan) as error:
        for problem in error.problems:
            say(describe_problem(getattr(options, "file", "export"), problem))
    except KeyboardInterrupt:
        say("Interrupted. What was done stays; apply again for the rest.")
        return EXIT_INTERRUPTED
    return EXIT_NOT_DONE


def make_parser() -> argparse.ArgumentParser:
    """Describe the commands."""
    to_api = _Parser(add_help=False)
    to_api.add_argument("--url", metavar="URL", help="where the API is; else TOCSIN_URL of the environment or .env")
    to_api.add_argument(
        "--api-key",
        metavar="KEY",
        help="a key with the scope write; better in TOCSIN_API_KEY, which no list of processes shows",
    )
    how = _Parser(add_help=False)
    how.add_argument("--dry-run", action="store_true", help="show the plan, and do nothing")
    how.add_argument(
        "--detailed-exitcode", action="store_true", help="with --dry-run: exit 2 if there is something to do"
    )
    how.add_argument("--yes", action="store_true", help="do not ask; what would be deleted needs --prune besides")
    how.add_argument("--send-secrets", action="store_true", help="send all secrets anew; they cannot be compared")
    how.add_argument("--channel-secrets", metavar="FILE", help="where to write the signing secrets of new channels")
    parser = _Parser(prog="python -m server.cli", description="Tocsin's monitors, channels and maintenance as a file.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    apply = commands.add_parser(
        "apply", parents=[to_api, how], help="make the organisation what a YAML file says", description=_APPLY
    )
    apply.add_argument("file", metavar="FILE", help="the YAML file, or - for stdin")
    apply.add_argument("--prune", action="store_true", help="delete without being asked")
    apply.add_argument("--keep", action="store_true", help="keep what the file has not")
    apply.set_defaults(run=run_apply)
    exporting = commands.add_parser(
        "export", parents=[to_api], help="write the organisation as a YAML file", description=_EXPORT
    )
    exporting.add_argument("--output", metavar="FILE", help="where to write it, instead of stdout")
    exporting.set_defaults(run=run_export)
    importing = commands.add_parser("import", help="come over from another monitor")
    sources = importing.add_subparsers(required=True, metavar="SOURCE")
    kuma = sources.add_parser(
        "uptime-kuma", parents=[to_api, how], help="from the JSON backup of Uptime Kuma 1.x", description=_KUMA
    )
    kuma.add_argument("file", metavar="FILE", help="the backup, or - for stdin")
    kuma.add_argument("--output", metavar="FILE", help="where to write the YAML, instead of stdout")
    kuma.add_argument("--apply", action="store_true", help="apply it at once; nothing is deleted")
    kuma.set_defaults(run=run_import)
    return parser


_APPLY = """Compare a YAML file with the organisation of the key, show what would be done, ask, and do it. Things are
found again by their names. A section that the file has is the whole of it: what is not there is deleted. A section that
the file has not stays as it is."""
_EXPORT = (
    "Write monitors, channels and maintenance windows as YAML, for which apply has nothing to do. Secrets stay out."
)
_KUMA = """Turn a backup of Uptime Kuma into a YAML file, and say of each monitor what does not come along. Passwords
become variables, which are to be set when the file is applied; --apply takes them from the backup."""


def run_apply(options: argparse.Namespace, env: Mapping[str, str]) -> int:
    """Make the organisation what the file says."""
    return apply_text(options, env, read_text(options.file), keeps=options.keep, prunes=options.prune)


def run_export(options: argparse.Namespace, env: Mapping[str, str]) -> int:
    """Write the organisation as a file."""
    write_text(options.output, export(fetch_everything(connect(env))))
    return 0


def run_import(options: argparse.Namespace, env: Mapping[str, str]) -> int:
    """Turn a backup into a file, and apply it where that is wished."""
    try:
        converted = convert(read_backup(read_text(options.file)))
    except NotABackup as error:
        raise Stop(f"{options.file}: {error}") from None
    text = write_document(converted.document)
    if options.output or not options.apply:
        write_text(options.output, text)
    report_losses(converted, options.apply)
    if not options.apply:
        return 0
    return apply_text(options, {**env, **converted.secrets}, text, keeps=True, prunes=False)


def report_losses(converted: Converted, applies: bool) -> None:
    """Say what does not come along, and which variables are needed."""
    whole = [loss for loss in converted.losses if loss.is_whole]
    parts = [loss for loss in converted.losses if not loss.is_whole]
    say(f"{len(converted.document['monitors'])} monitors come along.")
    for title, losses in (("These do not:", whole), ("Of these something does not:", parts)):
        if losses:
            say(f"\n{title}")
        for loss in losses:
            say(f"  {visible(loss.monitor)}: {loss.reason}")
    if converted.secrets and not applies:
        say("\nSet these variables before you apply the file; their values are in the backup:")
        for name in converted.secrets:
            say(f"  {name}")


def apply_text(options: argparse.Namespace, env: Mapping[str, str], text: str, *, keeps: bool, prunes: bool) -> int:
    """Read, compare, show, ask, do, report."""
    desired = read_desired(text, env)
    api = connect(env)
    organisation = name_organisation(api)
    needed = set(desired) | ({Section.MONITORS} if Section.WINDOWS in desired else set())
    plan = make_plan(desired, fetch(api, sorted(needed)), keeps=keeps, sends_secrets=options.send_secrets)
    print(f"{organisation} at {api.settings.api_url}\n\n{describe_plan(plan)}", flush=True)
    if options.dry_run or not plan.steps:
        return EXIT_SOMETHING_TO_DO if plan.steps and options.detailed_exitcode else 0
    require_consent(plan, is_agreed=options.yes, prunes=prunes)
    keep_secret = open_for_secrets(plan, options.channel_secrets)
    outcome = carry_out(plan, api, uuid4, tell_progress, keep_secret)
    if outcome.failed:
        say(describe_failures(options.file, outcome))
    print(describe_outcome(outcome))
    return EXIT_NOT_DONE if outcome.failed else 0


def require_consent(plan: Plan, *, is_agreed: bool, prunes: bool) -> None:
    """Ask where somebody can be asked. Raises Stop."""
    if plan.emptied and not prunes:
        what = " and ".join(plan.emptied)
        raise Stop(f"Nothing of what there is of {what} would be left. If that is meant, add --prune.")
    losses = sum(step.destroys for step in plan.steps)
    if is_agreed and losses and not prunes:
        raise Stop(
            f"--yes does not delete: {losses} would be lost. Add --prune, or --keep to keep what the file has not."
        )
    if is_agreed:
        return
    if not sys.stdin.isatty():
        raise Stop("Nobody can be asked here. Add --yes to do this, or --dry-run to look only.")
    print("\nDo this? Only yes is taken for yes: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != "yes":
        raise Stop("Nothing was done.")


def open_for_secrets(plan: Plan, path: str | None) -> KeepSecret:
    """Open the file for the signing secrets of new channels before any is made: they are shown once. Raises Stop."""
    makes = [
        step.name
        for step in plan.steps
        if step.section is Section.CHANNELS and step.action in (Action.CREATE, Action.REPLACE)
    ]
    if path is None:
        for name in makes:
            say(f"Nobody is shown the signing secret of channel {visible(name)}; --channel-secrets FILE keeps it.")
        return lambda name, secret: None
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Stop(f"{path} cannot be made for the secrets: {error.strerror}.") from None

    def keep(name: str, secret: str) -> None:
        os.write(file, write_document({name: secret}).encode())

    return keep


def tell_progress(number: int, total: int, step: Step, failure: Failure | None) -> None:
    """Say what became of a step."""
    say(describe_progress(number, total, step, failure))


def connect(env: Mapping[str, str]) -> Api:
    """Make a client of the API that the environment names. Raises SettingsError."""
    return Api(read_client_settings(env), time.sleep, say, random.random)


def read_text(name: str) -> str:
    """Read a file, or stdin. Raises Stop, or UnusableFile."""
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise Stop(f"{name} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UnusableFile([Problem(line, "This is not UTF-8.")]) from None


def write_text(name: str | None, text: str) -> None:
    """Write a file, or stdout. Raises Stop."""
    if name is None:
        sys.stdout.write(text)
        return
    try:
        Path(name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Stop(f"{name} cannot be written: {error.strerror}.") from None


def say(words: str) -> None:
    """Tell the person something that is not the command's result."""
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
