"""What each role in an organisation may do. The same stands as policies in the database, which has the last word."""

from enum import StrEnum


class Role(StrEnum):
    """What a member is; each may do whatever the one before may."""

    VIEWER = "viewer"
    EDITOR = "editor"
    ADMIN = "admin"
    OWNER = "owner"


_RANK = {role: rank for rank, role in enumerate(Role)}


def is_at_least(role: Role, needed: Role) -> bool:
    """Tell whether a role may whatever `needed` may."""
    return _RANK[role] >= _RANK[needed]


def may_edit(role: Role) -> bool:
    """Create, change and delete monitors and channels; work on incidents; send deliveries again."""
    return is_at_least(role, Role.EDITOR)


def may_administer(role: Role) -> bool:
    """Rename the organisation."""
    return is_at_least(role, Role.ADMIN)


def may_own(role: Role) -> bool:
    """Say whether the organisation demands a second factor of its owners."""
    return role == Role.OWNER


def is_assured(aal: str, *, require_aal2: bool = True) -> bool:
    """Tell whether a session has shown the second factor (Supabase Auth's `aal`), or needs none."""
    return not require_aal2 or aal in {"aal2", "aal3"}


def may_found(*, is_anonymous: bool) -> bool:
    """Create an organisation, invite, be invited: anybody with an account that can be found again."""
    return not is_anonymous
