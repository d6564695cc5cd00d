"""Why a check failed, in the words that all kinds share."""

import errno
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from server.details import clean_detail
from server.features.checks.rules import ErrorKind, Observation
from server.probes.names import Lookup

logger = logging.getLogger(__name__)

# Ours, not the target's: too many open files, no memory or buffers left.
_OWN_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


class Trouble(NamedTuple):
    """Why a check failed."""

    kind: ErrorKind
    detail: str


def fail(seen: Observation, trouble: Trouble) -> Observation:
    """Return what was seen, failed."""
    return replace(seen, error_kind=trouble.kind, error_detail=clean_detail(trouble.detail))


def find_lookup_trouble(host: str, lookup: Lookup) -> Trouble | None:
    """Return why a host's addresses are not known, or None where they are."""
    if lookup.timed_out:
        return Trouble(ErrorKind.TIMEOUT, "timed out while looking up the name")
    if not lookup.addresses:
        return Trouble(ErrorKind.DNS, f"the name {host} could not be resolved")
    return None


def describe_block(host: str, refused_addresses: Sequence[str]) -> Trouble:
    """Say that a host may not be reached. Users do not learn what it resolves to in here; the log does."""
    logger.info("probe of %s refused: %s", host, ", ".join(refused_addresses[:4]))
    return Trouble(ErrorKind.BLOCKED, f"{host} is not a public address, or resolves to none that is")


def describe_error(error: OSError, words: str) -> Trouble:
    """Say what the system said of a connection: `could not connect: connection refused`."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    if error.errno in _OWN_ERRNOS:
        return Trouble(ErrorKind.INTERNAL, f"no socket could be used here: {reason}")
    return Trouble(ErrorKind.CONNECT, f"{words}: {reason}")
