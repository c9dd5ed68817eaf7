"""
Which providers of identities people may come from: a file (COUNTROOM_OIDC), a JSON list of

    {"name", "issuer", "client_id", "client_secret_file", "roles": {group: role}, …}

Invariants:
    - a secret is never in the file itself, but in one beside it that only the service may read;
    - an issuer is reached encrypted, unless it is this very machine;
    - a group comes to a role that exists, or the service does not start;
    - by a group nobody decides for others, or about who may do what: whoever runs the provider would choose them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from access.policy import ROLES, Action
from domain.operators import REGULATOR

ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519")
"""By asymmetric keys only: who can check a token cannot make one."""


_DECIDES = {
    Action.APPROVAL_DECIDE, Action.ROLE_GRANT, Action.OPERATOR_INVITE, Action.OPERATOR_MANAGE, Action.OPERATOR_READ,
    Action.TOKEN_ISSUE, Action.TOKEN_REVOKE, Action.POLICY_ADOPT, Action.COMPARTMENT_MANAGE,
}  # fmt: skip
APART = frozenset({REGULATOR, *(role for role, granted in ROLES.items() if granted & _DECIDES)})
"""Roles that no group comes to: they decide for others, or about who may do what, or have no other role beside them."""


class IdentityProvidersError(ValueError):
    """The file cannot be used; the text says why."""


class SecondFactor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By which authentication methods (RFC 8176) or context classes the provider says that a second factor was shown."""

    amr: tuple[str, ...] = ()
    acr: tuple[str, ...] = ()


class IdentityProvider(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`roles`: what a member of a group holds, for the time of the session, beside what was granted. `label`: on the button."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}\Z")]
    issuer: str
    client_id: str
    client_secret_file: str
    label: str = ""
    roles: Mapping[str, str] = {}
    groups_claim: str = "groups"
    scopes: tuple[str, ...] = ("openid",)
    algorithms: tuple[str, ...] = ("RS256", "PS256", "ES256", "EdDSA")
    second_factor: SecondFactor = SecondFactor()
    secret: str = ""

    def __repr__(self) -> str:
        return f"IdentityProvider({self.name})"

    def may_be_asked(self, address: str) -> bool:
        """Whether what is sent there stays between us."""
        parts = urlsplit(address)
        return parts.scheme == "https" or (parts.scheme == "http" and _is_here(parts.hostname or ""))


def load(path: Path | None) -> tuple[IdentityProvider, ...]:
    """The providers of a file; none without one. Raises IdentityProvidersError."""
    if path is None:
        return ()
    try:
        found = msgspec.json.decode(path.read_bytes(), type=list[IdentityProvider])
    except OSError as error:
        raise IdentityProvidersError(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise IdentityProvidersError(f"{path}: {error}") from error
    made = tuple(_checked(each, path) for each in found)
    if len({each.name for each in made}) < len(made) or len({each.issuer for each in made}) < len(made):
        raise IdentityProvidersError(f"{path}: two providers have one name, or one issuer")
    return made


def _checked(provider: IdentityProvider, path: Path) -> IdentityProvider:
    where = f"{path}: {provider.name}"
    if provider.secret:
        raise IdentityProvidersError(f"{where}: a secret stands in a file of its own (client_secret_file)")
    if not provider.may_be_asked(provider.issuer):
        raise IdentityProvidersError(f"{where}: an issuer begins with https://")
    if unknown := sorted(set(provider.roles.values()) - ROLES.keys()):
        raise IdentityProvidersError(f"{where}: no role is called {', '.join(unknown)}")
    if apart := sorted(role for role in set(provider.roles.values()) if role in APART):
        raise IdentityProvidersError(f"{where}: {', '.join(apart)} is granted by two people here, and by no group")
    if wrong := sorted(set(provider.algorithms) - set(ALGORITHMS)):
        raise IdentityProvidersError(f"{where}: the algorithms are {', '.join(ALGORITHMS)}, not {', '.join(wrong)}")
    file = path.parent / provider.client_secret_file
    try:
        secret = file.read_text().strip()
    except OSError as error:
        raise IdentityProvidersError(f"{where}: {file} cannot be read: {error.strerror}") from error
    if file.stat().st_mode & 0o077:
        raise IdentityProvidersError(f"{where}: {file} may be read by others; chmod 600 it")
    return msgspec.structs.replace(provider, secret=secret)


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def digest(providers: Iterable[IdentityProvider]) -> str:
    """SHA-256, in hex, of what was told of the providers, their secrets left out: who may let in whom, as which role."""
    told = [msgspec.structs.replace(each, secret="") for each in providers]
    return hashlib.sha256(msgspec.json.encode(told, order="sorted")).hexdigest()
