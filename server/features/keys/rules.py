"""What an API key may do: its scopes, and which member it is as good as. The database has the last word."""

from collections.abc import Set
from enum import StrEnum

from server.features.orgs.rules import Role


class Scope(StrEnum):
    """What a key is for. `write` includes `read`, `admin` both; the other two see nothing."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    METRICS_WRITE = "metrics:write"
    PINGS_WRITE = "pings:write"


_INCLUDED_IN = {
    Scope.READ: {Scope.READ, Scope.WRITE, Scope.ADMIN},
    Scope.WRITE: {Scope.WRITE, Scope.ADMIN},
}


def may(scopes: Set[str], needed: Scope) -> bool:
    """Tell whether a key with these scopes may do what needs `needed`."""
    return not scopes.isdisjoint(_INCLUDED_IN.get(needed, {needed}))


def role_of(scopes: Set[str]) -> Role | None:
    """Return which member a key is as good as; None where it may see nothing."""
    for scope, role in ((Scope.ADMIN, Role.ADMIN), (Scope.WRITE, Role.EDITOR), (Scope.READ, Role.VIEWER)):
        if scope in scopes:
            return role
    return None
