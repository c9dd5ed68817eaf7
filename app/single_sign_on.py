"""
Single sign-on: away to a provider of identities, and back; and what it tells us behind the browser's back.

Invariants:
    - whoever comes back is the browser that went away (a cookie of its own), with the state that it took along, once;
    - a provider makes nobody an operator: it is linked by an invitation, or by somebody who is signed in with a fresh second factor;
    - a provider's word for a second factor counts from when it was shown there, not from when it was told;
    - what a provider has ended is over here, also what waits for a second factor.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog

from access import pending, sessions
from access.credentials import Credentials
from access.oidc import Identity, NotBelieved, Oidc, ProviderSilent
from access.pending import Away, FirstFactor
from access.sessions import provider_digest
from app.problems import ProviderUnavailable, SignInFailed
from app.signing_in import NOBODY, Asking, SignIn, Step
from commands import signin
from commands.signin import Session
from domain import operators
from domain.errors import NotFound, Rejected
from domain.kernel import OperatorId, parse_id
from policies import steps

COOKIE = "__Host-countroom-away"
_JTI_SECONDS = 1_200
"""Longer than a token is taken: access.oidc.OLD and its leeway on both sides."""
_log = structlog.get_logger(__name__)


class LogoutRefused(Rejected):
    code = "logout_refused"
    title = "This is no logout token of the provider for us"


class Departure(NamedTuple):
    """`browser`: the value of COOKIE, without which nobody comes back."""

    url: str
    browser: str


class SingleSignOn:
    """All providers of identities of a region."""

    def __init__(self, signing_in: SignIn) -> None:
        self._in = signing_in

    def _provider(self, name: str) -> Oidc:
        """Raises NotFound."""
        if (found := self._in.providers.get(name)) is None:
            raise NotFound("no provider of identities has this name")
        return found

    def redirect_uri(self, name: str) -> str:
        return f"{self._in.site.origin}/v1/signin/oidc/{name}/callback"

    async def depart(
        self, name: str, *, invitation: str = "", linking: Session | None = None, again: bool = False
    ) -> Departure:
        """Where the browser goes. `invitation`: operator_id:secret, of who joins; `linking`: in whose session an account is linked;
        `again`: to show there anew who they are, so that their second factor is fresh. Raises NotFound, ProviderUnavailable.
        """
        provider, state, browser = self._provider(name), pending.new_name(), secrets.token_urlsafe(32)
        try:
            at_most = timedelta() if again else sessions.ABSOLUTE
            question = await provider.ask(state, self.redirect_uri(name), at_most, self._in.now())
        except (ProviderSilent, NotBelieved) as error:
            _log.warning("a provider of identities does not answer", provider=name, reason=str(error))
            raise ProviderUnavailable from error
        away = Away(
            provider=name,
            nonce=question.nonce,
            verifier=question.verifier,
            browser=pending.digest(browser),
            invitation=invitation,
            linking=linking.operator_id if linking else "",
            means=linking.means if linking else 0,
        )
        await self._in.pending.put(away, state)
        return Departure(question.url, browser)

    async def arrive(self, name: str, given: tuple[str, str, str | None], browser: str, asking: Asking) -> Step:
        """Whoever comes back, with (code, state, iss). Raises SignInFailed, ProviderUnavailable, NotFound."""
        provider, at, (code, state, issuer) = self._provider(name), self._in.now(), given
        away = await self._in.pending.take(Away, state)
        if away is None or away.provider != name or not secrets.compare_digest(away.browser, pending.digest(browser)):
            raise SignInFailed
        try:
            identity = await provider.answer(code, issuer, away.nonce, away.verifier, self.redirect_uri(name), at)
        except NotBelieved as error:
            _log.warning("what a provider of identities says is not believed", provider=name, reason=str(error))
            raise SignInFailed from error
        except ProviderSilent as error:
            _log.warning("a provider of identities does not answer", provider=name, reason=str(error))
            raise ProviderUnavailable from error
        who = await self._credentials(identity, away, at)
        first = FirstFactor(
            operator=who.operator_id,
            method="oidc",
            means=who.operator.means,
            since=at,
            roles=provider.roles(identity.groups),
            providers=_names(identity),
        )
        if not identity.second_factor:
            return await self._in.after_first(first, asking)
        shown_at = min(identity.at, at) if identity.at else at - steps.FRESH
        return Step(begun=await self._in.vouched(who, first, name, shown_at, asking))

    async def _credentials(self, identity: Identity, away: Away, at: datetime) -> Credentials:
        """Whom the provider means. Raises SignInFailed."""
        issuer, subject = identity.issuer, subject_digest(identity)
        standing = await self._in.directory.by_identity(issuer, subject)
        if standing is not None and (away.invitation or away.linking not in ("", standing.operator_id)):
            raise SignInFailed  # the provider's user is another operator's already
        if away.invitation:
            operator_id, _, secret = away.invitation.partition(":")
            await self._join(OperatorId(operator_id), secret, issuer, subject, at)
            return await self._in.credentials.of(OperatorId(operator_id))
        if away.linking:
            by = Session(OperatorId(away.linking), away.means)
            await self._in.decide(signin.link(by, issuer, subject, at))
            return await self._in.credentials.of(OperatorId(away.linking))
        who = await self._in.credentials.of(standing.operator_id if standing else NOBODY)
        if standing is None or standing.principal is None:
            raise self._in.failed(who, "oidc", "not_active")
        return who

    async def _join(self, operator_id: OperatorId, secret: str, issuer: str, subject: str, at: datetime) -> None:
        parse_id("operator", operator_id)
        digest = hashlib.sha256(secret.encode()).hexdigest()

        def linked(operator: operators.Operator) -> list[operators.OperatorEvent]:
            return operators.link_identity(operator, issuer=issuer, subject=subject)

        await self._in.decide(signin.join(operator_id, digest, linked, at))

    async def signed_out(self, name: str, token: str) -> int:
        """End what the provider says has ended there: what is open, and what is on its way. Its message is spent once that is done, so
        one that comes again because we failed is heard. Returns how many sessions. Raises LogoutRefused, ProviderUnavailable, NotFound.
        """
        provider, at = self._provider(name), self._in.now()
        try:
            said = await provider.signed_out(token, at)
        except NotBelieved as error:
            _log.warning("a logout token is not believed", provider=name, reason=str(error))
            raise LogoutRefused from error
        except ProviderSilent as error:
            raise ProviderUnavailable from error
        message = f"{said.issuer}\n{said.id}"
        if await self._in.pending.is_spent(message):
            raise LogoutRefused("this logout token came before")
        kind, value = ("sid", said.session) if said.session else ("sub", said.subject)
        named, until = provider_digest(said.issuer, kind, value), self._in.now()
        await self._in.sessions.refuse_of(named, None if said.session else until)  # a sid never comes back, a user does
        ended = await self._in.sessions.of_provider(named)
        for each in ended:
            await self._in.decide(signin.end(self._in.log, OperatorId(each.session.operator), "provider", until))
            await self._in.sessions.end(each.digest)
        await self._in.pending.spend(message, _JTI_SECONDS)
        return len(ended)


def subject_digest(identity: Identity) -> str:
    """As operator.identity_linked has it: SHA-256 (hex) of issuer LF subject."""
    return hashlib.sha256(f"{identity.issuer}\n{identity.subject}".encode()).hexdigest()


def _names(identity: Identity) -> tuple[str, ...]:
    """By which the provider may end the session."""
    user = provider_digest(identity.issuer, "sub", identity.subject)
    return (user, provider_digest(identity.issuer, "sid", identity.session)) if identity.session else (user,)
