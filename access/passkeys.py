"""
Passkeys: WebAuthn (level 2) as second factor, or alone where the authenticator has verified its user.

Invariants:
    - a challenge is answered once: whoever keeps it takes it away before the answer is looked at;
    - a response counts for this origin and relying party only;
    - an authenticator that counts never counts backwards: such a response is refused (WebAuthn, 6.1.1), the copy with the original.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import webauthn
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

CHALLENGE_BYTES = 32
NAME = "Countroom"


class Site(NamedTuple):
    """Where people sign in. `origin`: scheme, host and port as a browser shows them, e.g. https://office.example."""

    origin: str

    @property
    def rp_id(self) -> str:
        """The host; browsers refuse an IP address here."""
        return urlsplit(self.origin).hostname or ""


class Passkey(NamedTuple):
    """As it was enrolled. `credential` and `public_key` (COSE) in base64url; `sign_count`: as far as it has counted."""

    factor: str
    credential: str
    public_key: str
    sign_count: int = 0


class Shown(NamedTuple):
    """A passkey was shown. `verified`: its user too, by PIN or fingerprint."""

    factor: str
    sign_count: int
    verified: bool


def challenge() -> str:
    """Fresh, in base64url."""
    return bytes_to_base64url(os.urandom(CHALLENGE_BYTES))


def to_enrol(site: Site, operator: str, name: str, known: Sequence[str], challenge: str) -> Any:
    """What navigator.credentials.create() is given, as JSON has it. `known`: credentials that are enrolled already."""
    options = webauthn.generate_registration_options(
        rp_id=site.rp_id,
        rp_name=NAME,
        user_id=operator.encode(),
        user_name=name,
        challenge=base64url_to_bytes(challenge),
        exclude_credentials=[PublicKeyCredentialDescriptor(id=base64url_to_bytes(each)) for each in known],
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.PREFERRED, user_verification=UserVerificationRequirement.PREFERRED
        ),
    )
    return json.loads(webauthn.options_to_json(options))


def to_show(site: Site, allowed: Sequence[str], challenge: str, *, alone: bool) -> Any:
    """What navigator.credentials.get() is given. `allowed`: credentials; none: any that this browser knows for the site.

    `alone`: the passkey is all that is asked for, so its user must be verified.
    """
    required, preferred = UserVerificationRequirement.REQUIRED, UserVerificationRequirement.PREFERRED
    options = webauthn.generate_authentication_options(
        rp_id=site.rp_id,
        challenge=base64url_to_bytes(challenge),
        allow_credentials=[PublicKeyCredentialDescriptor(id=base64url_to_bytes(each)) for each in allowed],
        user_verification=required if alone else preferred,
    )
    return json.loads(webauthn.options_to_json(options))


def enrolled(site: Site, response: dict[str, Any], challenge: str) -> Passkey | None:
    """The passkey that an authenticator has made for this challenge (factor: not named yet); None if it is none."""
    try:
        made = webauthn.verify_registration_response(
            credential=response,
            expected_challenge=base64url_to_bytes(challenge),
            expected_rp_id=site.rp_id,
            expected_origin=site.origin,
        )
    except _WRONG:
        return None
    credential, key = bytes_to_base64url(made.credential_id), bytes_to_base64url(made.credential_public_key)
    return Passkey("", credential, key, made.sign_count)


def credential_of(response: dict[str, Any]) -> str:
    """The credential that a response names, before anything of it was checked."""
    found = response.get("id")
    return found if isinstance(found, str) else ""


def user_of(handle: str) -> str:
    """The operator whom a user handle (base64url) names, as `to_enrol` gave it. Raises ValueError."""
    return base64url_to_bytes(handle).decode()


def shown(site: Site, response: dict[str, Any], challenge: str, passkey: Passkey, *, alone: bool) -> Shown | None:
    """Whether the response is the passkey's own to this challenge; None if not, or if the authenticator has counted backwards."""
    try:
        found = webauthn.verify_authentication_response(
            credential=response,
            expected_challenge=base64url_to_bytes(challenge),
            expected_rp_id=site.rp_id,
            expected_origin=site.origin,
            credential_public_key=base64url_to_bytes(passkey.public_key),
            credential_current_sign_count=passkey.sign_count,
            require_user_verification=alone,
        )
    except _WRONG:
        return None
    if bytes_to_base64url(found.credential_id) != passkey.credential:
        return None
    return Shown(passkey.factor, found.new_sign_count, found.user_verified)


_WRONG = (WebAuthnException, ValueError, KeyError, TypeError, IndexError, AttributeError)
"""What the library raises for a response that is not one; it reads what anybody may send."""
