"""What an organisation has, read whole."""

from collections.abc import Iterable

from server.cli.client import Api, Refused
from server.cli.resources import TRAITS, Actual, Found, Section


def fetch(api: Api, sections: Iterable[Section]) -> Actual:
    """Read some sections, in the order in which they were made. Raises Refused."""
    return {section: list(_fetch(api, section)) for section in sections}


def fetch_everything(api: Api) -> Actual:
    """Read every section that the API has: an older one may lack some. Raises Refused."""
    actual: dict[Section, list[Found]] = {}
    for section in Section:
        try:
            actual[section] = list(_fetch(api, section))
        except Refused as error:
            if error.status != 404:
                raise
            api.say(f"This API has no {section}; they are left out.")
    return actual


def _fetch(api: Api, section: Section) -> Iterable[Found]:
    newest_first = api.list_all(TRAITS[section].path)
    rows = sorted(newest_first, key=lambda row: (row["created_at"], row["id"]))
    return (Found(section, row["id"], row["name"], row["version"], row) for row in rows)


def name_organisation(api: Api) -> str:
    """Return the name of the organisation that the key is of. Raises Refused."""
    memberships = api.read("/v1/me")["memberships"]
    return ", ".join(membership["org_name"] for membership in memberships) or "none"
