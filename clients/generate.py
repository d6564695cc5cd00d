"""Make the TypeScript client's types from the OpenAPI document: `make clients`."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import orjson
from node import NODE, InstallError, install_modules

from server.app import all_operations
from server.http import openapi

HERE = Path(__file__).resolve().parent
PACKAGE = HERE / "typescript"
SCHEMA = PACKAGE / "src" / "schema.ts"
# Nothing is told to anybody, and no newer version is looked for.
_QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "NO_COLOR": "1"}


class GenerationError(Exception):
    """The generator failed; the message is what it said."""


def write_document(path: Path) -> Path:
    """Write the OpenAPI document to `path`, and return it."""
    path.write_bytes(
        orjson.dumps(openapi.document(all_operations(), "1", "http://127.0.0.1:8001"), option=orjson.OPT_INDENT_2)
    )
    return path


def write_types(document: Path, schema: Path) -> None:
    """Write the TypeScript types of a document. Raises GenerationError."""
    options = ["--alphabetize", "--default-non-nullable=false"]
    made = run_tool("openapi-typescript", document, "--output", schema, *options)
    if made.returncode != 0:
        raise GenerationError(made.stdout + made.stderr)


def run_tool(name: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a tool of the client's package."""
    return run_node(PACKAGE / "node_modules" / ".bin" / name, *arguments)


def run_node(*arguments: str | Path, env: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run Node in the client's package, whose npm packages are installed first. Raises InstallError."""
    install_modules(PACKAGE)
    return subprocess.run(
        [NODE, *arguments], cwd=PACKAGE, env={**os.environ, **_QUIET, **(env or {})}, capture_output=True, text=True
    )


def main() -> int:
    """Write `typescript/src/schema.ts` anew."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            write_types(write_document(Path(folder) / "openapi.json"), SCHEMA)
        except (InstallError, GenerationError) as error:
            print(error, file=sys.stderr)
            return 1
    print(f"{SCHEMA.relative_to(HERE.parent)} is as the routes are.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
