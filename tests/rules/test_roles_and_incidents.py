"""Who may do what, and how an incident moves."""

import pytest

from server.features.incidents.rules import IncidentState, may_move
from server.features.orgs.rules import Role, may_administer, may_edit, may_found


@pytest.mark.parametrize(
    ("role", "edits", "administers"),
    [(Role.VIEWER, False, False), (Role.EDITOR, True, False), (Role.ADMIN, True, True), (Role.OWNER, True, True)],
)
def test_each_role_may_do_what_the_one_before_may(role, edits, administers):
    assert (may_edit(role), may_administer(role)) == (edits, administers)


def test_anonymous_users_found_nothing():
    assert may_found(is_anonymous=False)
    assert not may_found(is_anonymous=True)


def test_an_incident_moves_forward_and_never_back():
    allowed = {(now.value, to.value) for now in IncidentState for to in IncidentState if may_move(now, to)}
    assert allowed == {("open", "acknowledged"), ("open", "resolved"), ("acknowledged", "resolved")}
