"""An organisation in memory that answers the command line as the API does."""

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from server.cli.client import Refused
from server.cli.entries import OPTIONS
from server.cli.resources import SECRETS, TRAITS, Section
from server.settings import ClientSettings

_SECTION_OF = {traits.path: section for section, traits in TRAITS.items()}


@dataclass
class Organisation:
    """Things by section and id. `refuses`: names that are answered with `refusal`."""

    things: dict[Section, dict[str, dict[str, Any]]] = field(default_factory=lambda: {each: {} for each in Section})
    refuses: set[str] = field(default_factory=set)
    refusal: Refused = field(default_factory=lambda: Refused(422, "invalid_input", "Some values are not valid."))
    log: list[str] = field(default_factory=list)
    secrets: dict[str, Any] = field(default_factory=dict)
    settings: ClientSettings = field(default_factory=lambda: ClientSettings("https://tocsin.example.com", "tocsin_k"))

    def read(self, path, query=None):
        assert path == "/v1/me"
        return {"memberships": [{"org_name": "Acme"}]}

    def list_all(self, path):
        return list(reversed(self.things[_SECTION_OF[path]].values()))

    def create(self, path, body, once):
        section = _SECTION_OF[path]
        self._check(body)
        self._check_parents(section, body)
        row = {"id": str(uuid4()), "version": 1, "created_at": f"{len(self.log):06}", **self._defaults(section), **body}
        self._store(section, row)
        self.log.append(f"create {row['name']}")
        return row | ({"secret": "whsec_x"} if section is Section.CHANNELS else {})

    def change(self, path, body, version):
        section, row = self._at(path, version)
        assert section is not Section.CHANNELS, "channels have no PATCH"
        assert "kind" not in body
        self._check(row | body)
        self._check_parents(section, body)
        merged = row | {name: value for name, value in body.items() if name != "options"}
        if "options" in body:
            merged["options"] = merge(row["options"], body["options"])
            if body["options"].get("auth"):
                merged["options"]["auth"] = body["options"]["auth"]  # it is sent whole, or stays
        self._store(section, merged | {"version": version + 1})
        self.log.append(f"change {row['name']}")

    def delete(self, path, version):
        section, row = self._at(path, version)
        del self.things[section][row["id"]]
        for each in self.things[Section.MONITORS].values():
            if row["id"] in each["depends_on"]:
                each["depends_on"].remove(row["id"])
                each["version"] += 1
        self.log.append(f"delete {row['name']}")

    def _at(self, path, version):
        collection, thing_id = path.rsplit("/", 1)
        section = _SECTION_OF[collection]
        if thing_id not in self.things[section]:
            raise Refused(404, "not_found", "There is no such thing.")
        row = self.things[section][thing_id]
        if row["version"] != version:
            raise Refused(412, "precondition_failed", "It has changed.")
        return section, row

    def _check(self, body):
        if body["name"] in self.refuses:
            raise self.refusal

    def _check_parents(self, section, body):
        for parent in body.get("depends_on", []) if section is Section.MONITORS else []:
            assert parent in self.things[Section.MONITORS], "a monitor depends on what is there"

    def _store(self, section, row):
        if section is Section.MONITORS:
            row["options"] = self._shown(row)
        self.things[section][row["id"]] = row

    def _shown(self, row):
        auth = row["options"].get("auth")
        told = {name: value for name, value in row["options"].items() if name != "auth"}
        whole = OPTIONS[row["kind"]].model_validate(told).model_dump(mode="json")
        if auth:
            for name in SECRETS & set(auth):
                self.secrets[row["name"]] = auth[name]
            whole["auth"] = {name: value for name, value in auth.items() if name not in SECRETS}
        return whole

    def _defaults(self, section):
        if section is Section.MONITORS:
            none = (
                "target",
                "interval_seconds",
                "timeout_seconds",
                "retry_interval_seconds",
                "degraded_after_ms",
                "slug",
            )
            rest = {"fail_threshold": 1, "recover_threshold": 1, "assertions": [], "depends_on": [], "regions": []}
            return dict.fromkeys(none) | rest | {"paused": False}
        if section is Section.WINDOWS:
            return {"description": None, "recurrence": None, "monitor_ids": []}
        return {}


def merge(current, patch):
    """Merge a patch as RFC 7396 has it."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(current) if isinstance(current, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged
