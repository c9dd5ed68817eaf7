"""
Signing in: a first factor, then a second one, then a session. What a person shows is checked here; that they came in, or did not,
is recorded in the log.

Invariants:
    - whatever is wrong (no such account, the password, the code, a lock, a suspension), the answer is the same, and costs a hash; of
      nobody as much is read as of somebody. An address that has to wait costs nothing, whoever it asks for;
    - nobody has a session by one factor alone, but to enrol a second one while there is none;
    - a session begins only after the log says that they came in: there a code is spent, also if Redis forgets everything;
    - a first factor goes no further if a suspension, a change of their means or their provider has ended it meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import structlog

from access import passkeys, pending, recovery, sessions, totp
from access.attempts import Attempts
from access.credentials import Credentials, CredentialsReader
from access.directory import Directory
from access.oidc import Oidc
from access.passkeys import Shown, Site
from access.passwords import Passwords
from access.pending import Challenge, FirstFactor, Pending
from access.sessions import Begun, Sessions
from app.authentication import Present
from app.problems import SignInFailed
from commands import signin
from commands.decider import Decider
from commands.signin import Came
from domain.errors import InvalidId
from domain.kernel import OperatorId, parse_id
from domain.operators import FactorKind, Operator, OperatorNotActive, Status
from domain.signins import CodeUsed, Signins, Succeeded
from eventstore.blind import normalised

NOBODY = OperatorId("operator_" + "0" * 26)
"""Whose credentials are looked for where there is no account."""
_NAMESAKES_MAX = 5
_ALL = 2**62
"""Whose only factor is shown now has heard of all changes."""
_log = structlog.get_logger(__name__)


class Step(NamedTuple):
    """After a first factor: which second ones go on with `ticket`; or a session in which only one can be enrolled."""

    ticket: str = ""
    factors: Sequence[str] = ()
    begun: Begun | None = None


class Asking(NamedTuple):
    """Where a request comes from, and the session id that its browser brought: it is over when a new one begins."""

    address: str
    session_id: str


class _Proof(NamedTuple):
    """A second factor that was shown."""

    factor: str
    step: int = 0
    credential: str = ""
    sign_count: int = 0
    spent: tuple[str, int] | None = None


class SignIn:
    """What sign-in needs at run time. `site`: as browsers know it. `providers`: of identities, by name."""

    def __init__(
        self,
        decider: Decider,
        credentials: CredentialsReader,
        directory: Directory,
        keeping: tuple[Sessions, Pending, Attempts],
        passwords: Passwords,
        site: Site,
        providers: Mapping[str, Oidc],
        now: Callable[[], datetime],
    ) -> None:
        self.log = decider.log
        self.decide = decider.decide
        self.credentials = credentials
        self.directory = directory
        self.sessions, self.pending, self.attempts = keeping
        self.passwords = passwords
        self.site = site
        self.providers = providers
        self.now = now
        self._telling: set[asyncio.Task[None]] = set()

    # The first factor

    async def by_password(self, email: str, password: str, asking: Asking) -> Step:
        """Raises SignInFailed, TooManySignIns."""
        at, account = self.now(), normalised(email)
        if not await self.attempts.address_may_try(asking.address, at):
            raise SignInFailed
        may = await self.attempts.account_may_try(account, at)
        who = await self._by_email(email)
        fits = await self.passwords.fits(who.password, password, asking.address)
        if not may or not fits or who.operator.status is not Status.ACTIVE:
            raise self.failed(who, "password", "waiting" if not may else "wrong" if not fits else "not_active")
        await self.attempts.succeeded(account, asking.address)
        first = FirstFactor(operator=who.operator_id, method="password", means=who.operator.means, since=at)
        return await self.after_first(first, asking)

    async def _by_email(self, email: str) -> Credentials:
        """Whose address it is: of several, such as of somebody who was invited anew, the one who is active; else nobody. Either way
        the credentials of one operator are read and opened: for nobody those of somebody, who is always the same for one address.
        """
        found = await self.credentials.find(email)
        known = [each for id_ in found[:_NAMESAKES_MAX] if (each := await self.directory.operator(id_)) is not None]
        active = [each for each in known if each.operator.status is Status.ACTIVE]
        stand_in = await self.directory.somebody(hashlib.sha256(normalised(email).encode()).digest())
        if len(active or known) == 1:
            return await self.credentials.of((active or known)[0].operator_id)
        await self.credentials.of(stand_in or NOBODY)
        return Credentials(NOBODY, Operator(), Signins(), None, {})

    async def after_first(self, first: FirstFactor, asking: Asking) -> Step:
        """What comes next. Raises SignInFailed."""
        who = await self.credentials.of(OperatorId(first.operator))
        if who.operator.status is not Status.ACTIVE:
            raise self.failed(who, first.method, "not_active")
        if who.has_second_factor:
            return Step(await self.pending.put(first), who.kinds())
        return Step(begun=await self.begin(who, first, None, asking))

    # The second factor

    async def by_code(self, ticket: str, code: str, asking: Asking) -> Begun:
        """By a one-time password or a recovery code. Raises SignInFailed."""
        first = await self.pending.look(FirstFactor, ticket)
        if first is None:
            raise SignInFailed
        at = self.now()
        may = await self.attempts.may_try(_second(first.operator), asking.address, at)
        who = await self.credentials.of(OperatorId(first.operator))
        proof = _proof_of(who, code, at)
        is_active = who.operator.status is Status.ACTIVE
        if not may or proof is None or not is_active or await self.pending.take(FirstFactor, ticket) is None:
            raise self.failed(who, "code", "waiting" if not may else "wrong" if is_active else "not_active")
        begun = await self.begin(who, first, proof, asking)
        await self.attempts.succeeded(_second(first.operator), asking.address)
        return begun

    async def challenge(self, purpose: str, ticket: str, present: Present | None) -> tuple[str, Any]:
        """A challenge for an authenticator, by name, and what the browser is given. Raises SignInFailed."""
        made, allowed, bound_to = passkeys.challenge(), list[str](), ""
        if purpose == "factor":
            first = await self.pending.look(FirstFactor, ticket)
            if first is None:
                raise SignInFailed
            who, bound_to = await self.credentials.of(OperatorId(first.operator)), pending.digest(ticket)
            allowed = [each.credential for each in who.passkeys()]
        elif purpose == "step_up":
            if present is None:
                raise SignInFailed
            who, bound_to = await self.credentials.of(present.operator_id), present.operator_id
            allowed = [each.credential for each in who.passkeys()]
        handle = await self.pending.put(Challenge(made, purpose, bound_to))
        return handle, passkeys.to_show(self.site, allowed, made, alone=purpose == "signin")

    async def by_passkey(self, handle: str, response: dict[str, Any], ticket: str, asking: Asking) -> Begun:
        """By a passkey: after a first factor (`ticket`), or alone. Raises SignInFailed."""
        at, challenge = self.now(), await self.pending.take(Challenge, handle)
        if challenge is None:
            raise SignInFailed
        if challenge.purpose == "factor" and challenge.bound_to == pending.digest(ticket):
            first = await self.pending.take(FirstFactor, ticket)
        elif challenge.purpose == "signin" and not ticket:
            operator = _user_of(response)
            first = FirstFactor(operator=operator, method="passkey", means=_ALL, since=at)
        else:
            first = None
        if first is None:
            raise SignInFailed
        # Nobody guesses a signature: what counts is the address, or anybody could lock out anybody here.
        may = await self.attempts.address_may_try(asking.address, at)
        who = await self.credentials.of(OperatorId(first.operator))
        proof = self._shown(who, challenge, response)
        if not may or proof is None or who.operator.status is not Status.ACTIVE:
            raise self.failed(who, "passkey", "wrong" if may else "waiting")
        begun = await self.begin(who, first, proof, asking)
        await self.attempts.succeeded(None, asking.address)
        return begun

    async def step_up(self, present: Present, code: str, passkey: tuple[str, dict[str, Any]], asking: Asking) -> Begun:
        """Show a second factor again. Raises SignInFailed."""
        at, account = self.now(), present.operator_id
        may = await self.attempts.may_try(_second(account), asking.address, at)
        who = await self.credentials.of(present.operator_id)
        if code:
            proof = _proof_of(who, code, at)
        else:
            handle, response = passkey
            challenge = await self.pending.take(Challenge, handle)
            mine = challenge is not None and (challenge.purpose, challenge.bound_to) == ("step_up", account)
            proof = self._shown(who, challenge, response) if challenge is not None and mine else None
        if not may or proof is None:
            raise self.failed(who, "step_up", "wrong" if may else "waiting")
        await self._record(who, "step_up", proof)
        await self.attempts.succeeded(_second(account), asking.address)
        begun = await self.sessions.step_up(present.id, at)
        if begun is None:
            raise SignInFailed
        return begun

    # Coming in, and going

    async def begin(self, who: Credentials, first: FirstFactor, proof: _Proof | None, asking: Asking) -> Begun:
        """A session for whom both factors speak; without a second one only to enrol it. Raises SignInFailed."""
        at = self.now()
        await self._require_good(who, first)
        await self._record(who, first.method, proof, first.roles)
        return await self.sessions.begin(
            first.operator,
            first.method,
            at,
            stepped_up=at if proof else None,
            means=who.operator.means,
            roles=first.roles,
            providers=first.providers,
            since=first.since,
            instead_of=asking.session_id,
        )

    async def vouched(
        self, who: Credentials, first: FirstFactor, factor: str, shown_at: datetime, asking: Asking
    ) -> Begun:
        """A session for whom a provider of identities vouches with both factors, shown there at a time. Raises SignInFailed."""
        await self._require_good(who, first)
        await self._record(who, first.method, _Proof(factor), first.roles)
        return await self.sessions.begin(
            first.operator,
            first.method,
            self.now(),
            stepped_up=shown_at,
            means=first.means,
            roles=first.roles,
            providers=first.providers,
            since=first.since,
            instead_of=asking.session_id,
        )

    async def out(self, present: Present, digest: str = "", how: str = "signed_out") -> None:
        """A session is over: this one, or the one that `digest` names, whosever it is."""
        if (ended := await self.sessions.end(digest or sessions.digest_of(present.id))) is not None:
            by = present.principal
            await self.decide(signin.end(self.log, OperatorId(ended.operator), how, self.now(), by))

    def failed(self, who: Credentials, method: str, why: str) -> SignInFailed:
        """To be raised. If there is such an account it is recorded meanwhile: nobody waits for that, so nobody can time it."""
        if who.operator.status is not Status.UNKNOWN:
            plan = signin.refuse(self.log, who.operator_id, method, why, self.now())
            task = asyncio.create_task(self._tell(plan))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)
        return SignInFailed()

    async def told(self) -> None:
        """Return once all refusals so far are recorded."""
        while self._telling:
            await asyncio.gather(*self._telling)

    async def came(self, came: Came, at: datetime) -> None:
        """Record that somebody came in. Raises CodeUsed, OperatorNotActive."""
        elsewhere = await self.credentials.elsewhere()
        await self.decide(signin.succeed(self.log, came, at, elsewhere=elsewhere))

    async def _require_good(self, who: Credentials, first: FirstFactor) -> None:
        """That nothing has ended what was begun with this first factor. Raises SignInFailed."""
        if first.means < who.operator.means:
            raise self.failed(who, first.method, "means_changed")
        if first.since <= who.operator.barred_until:
            raise self.failed(who, first.method, "not_active")
        if await self.sessions.is_ended(first.providers, first.since):
            raise self.failed(who, first.method, "provider_ended")

    async def _record(self, who: Credentials, method: str, proof: _Proof | None, roles: tuple[str, ...] = ()) -> None:
        shown = proof or _Proof("")
        succeeded = Succeeded(
            method=method,
            factors=(shown.factor,) if shown.factor else (),
            step=shown.step,
            credential=shown.credential,
            sign_count=shown.sign_count,
            roles=roles,
        )
        came = Came(who.operator_id, succeeded, shown.spent)
        try:
            await self.came(came, self.now())
        except CodeUsed:
            raise self.failed(who, method, "code_used") from None
        except OperatorNotActive:  # since a moment ago
            raise self.failed(who, method, "not_active") from None
        await self.directory.look_again()

    async def _tell(self, plan: Any) -> None:
        try:
            await self.decide(plan)
        except Exception as error:  # noqa: BLE001 — who was refused has their answer; the operator of the service hears of it
            _log.error("a refused sign-in could not be recorded", reason=str(error))

    def _shown(self, who: Credentials, challenge: Challenge, response: dict[str, Any]) -> _Proof | None:
        credential = passkeys.credential_of(response)
        for each in who.passkeys():
            if each.credential == credential:
                alone = challenge.purpose == "signin"
                found: Shown | None = passkeys.shown(self.site, response, challenge.challenge, each, alone=alone)
                return None if found is None else _Proof(each.factor, 0, each.credential, found.sign_count)
        return None


def _second(operator: str) -> str:
    """What counts the tries of a second factor: whoever knows the password cannot try them all."""
    return f"second\n{operator}"


def _proof_of(who: Credentials, code: str, at: datetime) -> _Proof | None:
    """What a code proves: the present step of an authenticator app, or a recovery code that was not used."""
    for factor in who.factors(FactorKind.TOTP):
        secret = who.secrets.get(factor)
        if secret is not None and (step := totp.step_of(secret, code, at, who.signins.step)) is not None:
            return _Proof(factor, step)
    for factor in who.factors(FactorKind.RECOVERY):
        digests = msgspec.json.decode(who.secrets.get(factor, "[]"), type=list[str])
        n = recovery.number_of(digests, code, who.signins.used.get(factor, ()))
        if n is not None:
            return _Proof(factor, spent=(factor, n))
    return None


def _user_of(response: dict[str, Any]) -> OperatorId:
    """Whose passkey it says it is; nobody's if that is no operator."""
    inner = response.get("response")
    handle = inner.get("userHandle") if isinstance(inner, dict) else None
    try:
        named = passkeys.user_of(handle) if isinstance(handle, str) else ""
        parse_id("operator", named)
    except (InvalidId, ValueError):
        return NOBODY
    return OperatorId(named)
