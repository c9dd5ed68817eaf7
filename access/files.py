"""
The policies as they stand in files: access/policies/*.cedar, and the schema of what they may speak of.

Invariants:
    - every policy has an @id that no other has, and a @reason in words;
    - a permit names one role (or one kind of our own processes) and each of its actions, so that what a role comes to can be
      read off the files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cedarpy

_FOLDER = Path(__file__).parent / "policies"
_SCHEMA = "schema.cedarschema"


class Malformed(ValueError):
    """The policies cannot be used; says which, and why."""


class Files(NamedTuple):
    """Texts by file name. `schema`: in Cedar's own notation."""

    policies: Mapping[str, str]
    schema: str

    @property
    def text(self) -> str:
        """All policies, file after file."""
        return "\n".join(self.policies.values())

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of all files: each as its name, LF, its length in bytes, LF, and its bytes, in the order of names."""
        sha = hashlib.sha256()
        for name, text in sorted({**self.policies, _SCHEMA: self.schema}.items()):
            content = text.encode()
            sha.update(b"%b\n%d\n%b" % (name.encode(), len(content), content))
        return sha.hexdigest()


class Grant(NamedTuple):
    """Whom a permit is for (`kind`: Role or Service), and which actions it names."""

    id: str
    kind: str
    name: str
    actions: frozenset[str]
    conditional: bool


def read(folder: Path = _FOLDER) -> Files:
    """The files of a folder, by default those of this release."""
    policies = {file.name: file.read_text() for file in sorted(folder.glob("*.cedar"))}
    return Files(policies, (folder / _SCHEMA).read_text())


def grants(text: str) -> list[Grant]:
    """What the permits say, condition or not. Raises Malformed."""
    found = []
    for id_, policy in _static(text):
        if policy["effect"] == "permit":
            whom = policy["principal"].get("entity") or {}
            if policy["principal"]["op"] not in ("in", "==") or whom.get("type") not in ("Role", "Service"):
                raise Malformed(f"{id_}: a permit names one Role or Service")
            actions = scope(policy["action"])
            if not actions or {each["type"] for each in actions} != {"Action"}:
                raise Malformed(f"{id_}: a permit names its actions")
            names = frozenset(each["id"] for each in actions)
            found.append(Grant(id_, whom["type"], whom["id"], names, bool(policy["conditions"])))
    return found


def faults(files: Files) -> list[str]:
    """What is wrong with the files: an error in a line, empty if nothing is."""
    try:
        static = dict(_static(files.text))
        grants(files.text)
        said = cedarpy.validate_policies(files.text, cedarpy.Schema.from_str(files.schema))
    except ValueError as error:
        return [str(error)]
    named = said.id_annotations_by_policy_id
    found = [f"{named.get(error.policy_id, error.policy_id)}: {error.error}" for error in said.errors]
    return found + [
        f"{id_}: needs a @reason" for id_, policy in static.items() if not policy["annotations"].get("reason")
    ]


def _static(text: str) -> Iterator[tuple[str, Any]]:
    """The policies by their @id, in Cedar's JSON. Raises Malformed."""
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as error:
        raise Malformed(str(error)) from error
    if parsed["templates"]:
        raise Malformed("templates are not used here")
    known: set[str] = set()
    for policy in parsed["staticPolicies"].values():
        id_ = policy.get("annotations", {}).get("id")
        if not id_ or id_ in known:
            raise Malformed(f"a policy needs an @id of its own: {id_ or json.dumps(policy['action'])}")
        known.add(id_)
        yield id_, policy


def scope(of: Mapping[str, Any]) -> list[Mapping[str, str]]:
    """The entities that the scope of a policy names."""
    return of.get("entities") or ([of["entity"]] if "entity" in of else [])
