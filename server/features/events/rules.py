"""Where a reader of the event log stands, and which events they may see. Pure.

`may_see` says in one place what the policies of `public.events` say in the database: routes leave it to the policies,
the stream process, which reads for everybody at once, asks here. A test holds the two against each other.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from server.features.orgs.rules import Role, may_administer

ADMIN_ONLY: Final = frozenset({"api_key", "invitation"})
_VERSION: Final = b"\x01"
_NOT_OURS: Final = "This is not a position of ours. Use next_after, or the id of an event, unchanged."


class Position(NamedTuple):
    """How far a reader has come in the log: transaction id, then sequence. Positions are ordered."""

    xid: int
    seq: int

    def encode(self) -> str:
        """Return the position as opaque text that may stand in a URL and in a header."""
        packed = _VERSION + self.xid.to_bytes(8, "big") + self.seq.to_bytes(8, "big")
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def decode_position(text: str) -> Position:
    """Return the position that `encode` spelled so. Raises ValueError for anything else."""
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise ValueError(_NOT_OURS) from None
    position = Position(int.from_bytes(packed[1:9], "big"), int.from_bytes(packed[9:], "big"))
    if len(packed) != 17 or max(position) >= 2**63 or position.encode() != text:
        raise ValueError(_NOT_OURS)
    return position


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a reading of the database saw: transactions below `xmin`, and of those below `xmax` all but `running`."""

    xmin: int
    xmax: int
    running: frozenset[int]

    def sees(self, xid: int) -> bool:
        """Tell whether a committed transaction was seen."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.running)


def read_snapshot(text: str) -> Snapshot:
    """Read what Postgres writes of a pg_snapshot: `xmin:xmax:xid,xid`. Raises ValueError."""
    xmin, xmax, running = text.split(":")
    return Snapshot(int(xmin), int(xmax), frozenset(int(xid) for xid in running.split(",") if xid))


@dataclass(frozen=True, slots=True)
class Change:
    """Somebody became, was, or is no more (`role` None) a member."""

    position: Position
    org_id: str
    user_id: str
    role: Role | None


@dataclass(frozen=True, slots=True)
class KeyChange:
    """An API key was revoked, rotated or changed otherwise: whoever listens with it has to show it again."""

    position: Position
    key_id: str


@dataclass(frozen=True, slots=True)
class Rights:
    """What a reader is where, as `as_of` saw it and changes since have left it. Ids are UUIDs in canonical text.

    `user_id` is the user's, or the id of the API key that they come with. `changed` holds the sequence of the latest
    change by organisation.
    """

    user_id: str
    roles: Mapping[str, Role]
    as_of: Snapshot
    changed: Mapping[str, int] = field(default_factory=dict)


def after_change(rights: Rights, change: Change) -> Rights:
    """Return what a reader may see after a change of their memberships; the same rights where it changes nothing new.

    Changes may come again and in any order. What the snapshot saw is in the roles already. Of the others the highest
    sequence counts: writers of one row wait for each other, so that it tells their order, which a transaction id that
    was given out before the wait does not.
    """
    if rights.as_of.sees(change.position.xid) or change.position.seq <= rights.changed.get(change.org_id, 0):
        return rights
    roles = {org_id: role for org_id, role in rights.roles.items() if org_id != change.org_id}
    if change.role is not None:
        roles[change.org_id] = change.role
    return replace(rights, roles=roles, changed={**rights.changed, change.org_id: change.position.seq})


def may_see(rights: Rights, org_id: str, subject_kind: str, subject_id: str) -> bool:
    """Tell whether a reader may see an event.

    Everybody sees what becomes of their own memberships, so that being removed can be seen. Members see what happens in
    their organisations, but keys and invitations are for admins.
    """
    if subject_kind == "membership" and subject_id == rights.user_id:
        return True
    role = rights.roles.get(org_id)
    return role is not None and (subject_kind not in ADMIN_ONLY or may_administer(role))
