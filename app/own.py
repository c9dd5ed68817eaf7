"""
What people change of their own way in: the password, an authenticator app, passkeys, recovery codes.

Invariants:
    - it takes a second factor that was shown a moment ago, here or at a provider of identities; only who has none yet enrols one
      without;
    - a secret is told once, to whoever enrols it, and stands in the log sealed;
    - an authenticator is enrolled only once it has shown that it works, and that use is spent;
    - a new password, new recovery codes and a removed factor end all other sessions of their operator, in every region; this one
      goes on under another id.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from access import passkeys, recovery, sessions, totp
from access.credentials import Credentials
from access.passkeys import NAME
from access.pending import Challenge, FirstFactor, NewSecret
from access.sessions import Begun
from access.steps import require_stepped_up
from app.authentication import Present
from app.problems import SignInFailed
from app.signing_in import Asking, SignIn
from commands import signin
from commands.signin import Came, Session
from domain import operators
from domain.kernel import OperatorId
from domain.operators import FactorEnrolled, FactorKind, InvitationRefused
from domain.signins import Succeeded


class Enrolling(NamedTuple):
    """`handle`: by which the second half goes on; `secret` and `address`: for an app; `options`: for navigator.credentials."""

    handle: str
    secret: str = ""
    address: str = ""
    options: Any = None


class Enrolled(NamedTuple):
    """`begun`: the session goes on under a new id, since a second factor was shown."""

    factor: str
    begun: Begun | None


class Own:
    """Enrols for those who are signed in, or invited."""

    def __init__(self, signing_in: SignIn) -> None:
        self._in = signing_in

    async def join(self, operator_id: OperatorId, invitation: str, password: str, asking: Asking) -> Begun:
        """Come for the first time, with a password of one's own: a session in which a second factor is enrolled.

        Raises what Passwords.hashed does, InvitationRefused (whatever is wrong with it), WrongRegion.
        """
        at = self._in.now()
        if not await self._in.attempts.may_try(f"invitation\n{operator_id}", asking.address, at):
            raise InvitationRefused
        digest = hashlib.sha256(invitation.encode()).hexdigest()
        called = await self._in.credentials.called(operator_id, invitation=digest)
        hashed = await self._in.passwords.hashed(password, asking.address, called)
        plan = signin.join(operator_id, digest, lambda who: operators.set_password(who, hash=hashed), at)
        await self._in.decide(plan)
        await self._in.attempts.succeeded(f"invitation\n{operator_id}", asking.address)
        who = await self._in.credentials.of(operator_id)
        first = FirstFactor(operator=operator_id, method="invitation", means=who.operator.means, since=at)
        return await self._in.begin(who, first, None, asking)

    async def set_password(self, present: Present, password: str, asking: Asking) -> Begun:
        """The session goes on as it is returned. Raises what Passwords.hashed does, StepUpRequired, MeansChanged, SignInFailed."""
        at = self._in.now()
        await self._allowed(present, at)
        called = await self._in.credentials.called(present.operator_id)
        hashed = await self._in.passwords.hashed(password, asking.address, called)
        await self._in.decide(signin.set_password(_session(present), hashed, at))
        this = sessions.digest_of(present.id)
        for each in await self._in.sessions.of(present.operator_id, at):
            if each.digest != this:
                await self._in.out(present, each.digest, "password_set")
        return await self._goes_on(present)

    async def totp(self, present: Present) -> Enrolling:
        """A secret for an authenticator app. Raises StepUpRequired."""
        await self._allowed(present, self._in.now())
        secret = totp.new_secret()
        handle = await self._in.pending.put(NewSecret(present.operator_id, secret))
        return Enrolling(handle, secret, totp.address(secret, present.operator_id[-8:], NAME))

    async def totp_shown(self, present: Present, handle: str, code: str, asking: Asking) -> Enrolled:
        """Enrol the app, which shows its code. Raises StepUpRequired, SignInFailed."""
        at = self._in.now()
        who = await self._allowed(present, at)
        may = await self._in.attempts.may_try(f"enrol\n{handle}", asking.address, at)
        pending = await self._in.pending.look(NewSecret, handle)
        mine = may and pending is not None and pending.operator == present.operator_id
        step = totp.step_of(pending.secret, code, at, who.signins.step) if mine and pending else None
        if step is None or pending is None or await self._in.pending.take(NewSecret, handle) is None:
            raise SignInFailed
        await self._in.attempts.succeeded(f"enrol\n{handle}", asking.address)
        factor = signin.new_factor(at)
        enrolled = FactorEnrolled(factor=factor, kind=FactorKind.TOTP, secret=pending.secret)
        return await self._enrol(present, enrolled, Succeeded(method="enrolled", factors=(factor,), step=step), at)

    async def passkey(self, present: Present) -> Enrolling:
        """A challenge for a new passkey. Raises StepUpRequired."""
        who = await self._allowed(present, self._in.now())
        challenge = passkeys.challenge()
        known = [each.credential for each in who.passkeys()]
        handle = await self._in.pending.put(Challenge(challenge, "enrol", present.operator_id))
        options = passkeys.to_enrol(self._in.site, present.operator_id, present.operator_id[-8:], known, challenge)
        return Enrolling(handle, options=options)

    async def passkey_made(self, present: Present, handle: str, response: dict[str, Any]) -> Enrolled:
        """Enrol the passkey that was made for the challenge. Raises StepUpRequired, SignInFailed."""
        at = self._in.now()
        await self._allowed(present, at)
        challenge = await self._in.pending.take(Challenge, handle)
        if challenge is None or (challenge.purpose, challenge.bound_to) != ("enrol", present.operator_id):
            raise SignInFailed
        made = passkeys.enrolled(self._in.site, response, challenge.challenge)
        if made is None:
            raise SignInFailed
        factor = signin.new_factor(at)
        enrolled = FactorEnrolled(
            factor=factor, kind=FactorKind.PASSKEY, credential=made.credential, public_key=made.public_key
        )
        counted = made.credential if made.sign_count else ""
        shown = Succeeded(method="enrolled", factors=(factor,), credential=counted, sign_count=made.sign_count)
        return await self._enrol(present, enrolled, shown, at)

    async def recovery_codes(self, present: Present) -> tuple[list[str], Begun]:
        """New ones in place of those before, told once. They recover a second factor, so there must be one.

        Raises StepUpRequired, MeansChanged, SignInFailed.
        """
        at = self._in.now()
        require_stepped_up(present.principal, "me.recovery_codes", at)
        codes = recovery.new_codes()
        digests = msgspec.json.encode([recovery.digest(each) for each in codes]).decode()
        enrolled = FactorEnrolled(factor=signin.new_factor(at), kind=FactorKind.RECOVERY, secret=digests)
        await self._in.decide(signin.enrol(_session(present), enrolled, at))
        return codes, await self._goes_on(present)

    async def remove(self, present: Present, factor: str) -> Begun:
        """Raises StepUpRequired, FactorUnknown, LastFactor, MeansChanged, SignInFailed."""
        at = self._in.now()
        require_stepped_up(present.principal, "me.factors", at)
        await self._in.decide(signin.remove_factor(_session(present), factor, at))
        return await self._goes_on(present)

    async def _goes_on(self, present: Present) -> Begun:
        """The session that has changed something is the one that goes on. Raises SignInFailed if it has ended meanwhile."""
        who = await self._in.credentials.of(present.operator_id)
        begun = await self._in.sessions.go_on(present.id, self._in.now(), who.operator.means)
        if begun is None:
            raise SignInFailed
        return begun

    async def _enrol(self, present: Present, enrolled: FactorEnrolled, shown: Succeeded, at: datetime) -> Enrolled:
        """What it has shown is spent with it, so that nobody comes in by the same."""
        await self._in.decide(signin.enrol(_session(present), enrolled, at))
        await self._in.came(Came(present.operator_id, shown), at)
        return Enrolled(enrolled.factor, await self._in.sessions.step_up(present.id, at))

    async def _allowed(self, present: Present, at: datetime) -> Credentials:
        """Raises StepUpRequired where there is a second factor, or one was shown by whatever way, and not a moment ago."""
        who = await self._in.credentials.of(present.operator_id)
        if who.has_second_factor or present.session.stepped_up is not None:
            require_stepped_up(present.principal, "me.factors", at)
        return who


def _session(present: Present) -> Session:
    return Session(present.operator_id, present.session.means)
