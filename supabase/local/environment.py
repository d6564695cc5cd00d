"""The environment of `make run`: what `.env` says, completed once with generated keys, never overwriting a value."""

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import dotenv_values
from ports import HOST
from stack import DEFAULT_PORT, ROOT, StackError

API_PORT = 8000
STREAMS_PORT = 8001
ENV_FILE = ROOT / ".env"
_HEAD = """\
# Written by `make run` for the embedded Supabase, with random keys. Yours to change: it is never overwritten.
# .env.example describes every variable; a real project's values go here as well.
"""
Token = Callable[[int], str]


def prepare_environment(
    env_file: Path, environment: Mapping[str, str], token: Token = secrets.token_urlsafe
) -> dict[str, str]:
    """Return the variables that the processes get; writes into `env_file` what they need and nobody has set.

    Real environment variables win over the file, and a blank value counts as not set. Raises StackError where the
    settings name a Supabase that is not the embedded one, or a port that is none.
    """
    is_new = not env_file.exists()
    in_file = {} if is_new else {name: value for name, value in dotenv_values(env_file).items() if value}
    settings = {**in_file, **{name: value for name, value in environment.items() if value}}
    _refuse_another_supabase(settings.get("SUPABASE_URL"))
    port = read_port(settings, "PORT", API_PORT)
    streams_port = read_port(settings, "STREAMS_PORT", STREAMS_PORT)
    supabase_port = read_port(settings, "SUPABASE_PORT", DEFAULT_PORT)
    wanted = _generated(token) if is_new else _without_choices(_generated(token))
    added = {name: value for name, value in wanted.items() if name not in settings}
    _append(env_file, added, is_new)
    return {
        **settings,
        **added,
        "PORT": str(port),
        "STREAMS_PORT": str(streams_port),
        "SUPABASE_PORT": str(supabase_port),
        "SUPABASE_URL": f"http://{HOST}:{supabase_port}",
    }


def read_port(settings: Mapping[str, str], name: str, default: int) -> int:
    """Return the port that a variable names. Raises StackError where it is not a number from 1 to 65535."""
    text = settings.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise StackError(f"{name} must be a port, 1 to 65535, not {text!r}")
    return int(text)


def _generated(token: Token) -> dict[str, str]:
    return {
        "SUPABASE_PUBLISHABLE_KEY": f"sb_publishable_{token(24)}",
        "SUPABASE_SECRET_KEY": f"sb_secret_{token(24)}",
        "SUPABASE_JWT_SECRET": token(48),
        "SUPABASE_JWT_ISSUER": "unchecked",  # the embedded stack's tokens carry no `iss`
        "PRIVATE_TARGETS": f"{HOST}/32",  # the demo watches this machine
        "WORKER_REFERENCES": "none",  # ... which needs no network for it
    }


def _without_choices(generated: Mapping[str, str]) -> dict[str, str]:
    # Leaving PRIVATE_TARGETS empty is a decision that somebody who wrote the file may have taken.
    return {name: value for name, value in generated.items() if name != "PRIVATE_TARGETS"}


def _refuse_another_supabase(url: str | None) -> None:
    if url and urlsplit(url).hostname not in (HOST, "localhost"):
        raise StackError(
            f"SUPABASE_URL is {url}, but `make run` serves the embedded Supabase: "
            "take it out of .env, or run against that project with `.venv/bin/honcho start -p 8000`"
        )


def _append(env_file: Path, added: Mapping[str, str], is_new: bool) -> None:
    if not added:
        return
    head = _HEAD if is_new else "\n# Added by `make run`\n"
    lines = [f"{name}={value}\n" for name, value in added.items()]
    with os.fdopen(os.open(env_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "w") as file:
        file.write(head + "".join(lines))
