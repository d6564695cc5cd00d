"""Who has a say over whom. Pure; the database decides the same once more, and has the last word."""

from typing import Final

from server.features.orgs.rules import Role

# The roles that each may give, change and take away.
_SAY_OVER: Final = {
    Role.VIEWER: frozenset[Role](),
    Role.EDITOR: frozenset[Role](),
    Role.ADMIN: frozenset({Role.VIEWER, Role.EDITOR, Role.ADMIN}),
    Role.OWNER: frozenset(Role),
}


def may_change(mine: Role, theirs: Role, role: Role) -> bool:
    """Make a member who is `theirs` into `role`; it does not matter whether that is oneself."""
    return {theirs, role} <= _SAY_OVER[mine]


def may_remove(mine: Role, theirs: Role, *, is_me: bool) -> bool:
    """End a membership. Anybody may leave; the last owner may not, for which the database counts under a lock."""
    return is_me or theirs in _SAY_OVER[mine]


def makes_or_unmakes_an_owner(*roles: Role) -> bool:
    """Tell whether a change is an owner's business, and so needs the second factor that the organisation may demand."""
    return Role.OWNER in roles
