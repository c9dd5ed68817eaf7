"""What sign-in hears and says on HTTP: the wire types of app.signin."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec

Email = Annotated[str, msgspec.Meta(min_length=1, max_length=320)]
Password = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
Code = Annotated[
    str, msgspec.Meta(max_length=60, description="Six digits of an authenticator app, or a recovery code.")
]
Handle = Annotated[str, msgspec.Meta(max_length=100)]


class ByPassword(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    email: Email
    password: Password


class ByCode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ticket: Handle
    code: Code


class ForPasskey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`ticket`: after a first factor; without one for a passkey alone, or for whoever is signed in to show it again."""

    ticket: Handle = ""
    again: bool = False


class ByPasskey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`response`: what navigator.credentials.get() gave, as JSON."""

    handle: Handle
    response: dict[str, Any]
    ticket: Handle = ""


class StepUp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A code, or a passkey's response."""

    code: Code = ""
    handle: Handle = ""
    response: dict[str, Any] = {}


class NewPassword(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`operator` and `invitation`: of who comes for the first time."""

    password: Password
    operator: Annotated[str, msgspec.Meta(max_length=60)] = ""
    invitation: Handle = ""


class Leave(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """To a provider of identities. `operator` and `invitation`: of who comes for the first time."""

    operator: Annotated[str, msgspec.Meta(max_length=60)]
    invitation: Handle


class Onward(msgspec.Struct, frozen=True):
    """Where the browser goes."""

    url: str


class EnrolTotp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """First without anything, which tells a secret; then with what its app shows."""

    handle: Handle = ""
    code: Code = ""


class EnrolPasskey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """First without anything, which gives the options; then with what navigator.credentials.create() made of them."""

    handle: Handle = ""
    response: dict[str, Any] = {}


class SignedIn(msgspec.Struct, frozen=True):
    """`csrf`: for the header X-CSRF-Token. `enrol`: nothing may be done but enrol a second factor."""

    operator: str
    csrf: str
    enrol: bool


class SignInStep(msgspec.Struct, frozen=True):
    """What comes next: one of `factors` (totp, passkey, recovery) with `ticket`; or they are signed in."""

    ticket: str
    factors: list[str]
    signed_in: SignedIn | None


class PasskeyOptions(msgspec.Struct, frozen=True):
    """`options`: for navigator.credentials; what comes of it is sent with `handle`."""

    handle: str
    options: dict[str, Any]


class Enrolment(msgspec.Struct, frozen=True):
    """The first half has a `handle`, and what is needed for the second; the second one names the `factor`."""

    factor: str = ""
    handle: str = ""
    secret: str = ""
    address: str = ""
    options: dict[str, Any] | None = None
    signed_in: SignedIn | None = None


class RecoveryCodes(msgspec.Struct, frozen=True):
    """Told once. Each is good once."""

    codes: list[str]


class OwnFactor(msgspec.Struct, frozen=True):
    factor: str
    kind: str


class Me(msgspec.Struct, frozen=True):
    """Who is signed in. `actions`: what their roles come to, before policies are asked. `stepped_up`: when a second factor was last shown.
    `enrol`: nothing may be done but enrol one.
    """

    operator: str
    csrf: str
    enrol: bool
    method: str
    stepped_up: datetime | None
    roles: list[str]
    actions: list[str]
    factors: list[OwnFactor]


class SessionInfo(msgspec.Struct, frozen=True):
    """`session` names it, and opens nothing. `current`: the one that asks."""

    session: str
    operator: str
    method: str
    created: datetime
    seen: datetime
    stepped_up: datetime | None
    current: bool


class SessionList(msgspec.Struct, frozen=True):
    items: list[SessionInfo]


class Ways(msgspec.Struct, frozen=True):
    """By which providers of identities one may come: name and label."""

    providers: dict[str, str]


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing more to say."""
