"""
Sign-in on HTTP: the page, the ways in and out, one's own sessions and means of signing in.

Invariants:
    - what is posted here is JSON from our own pages: no form of another site can post it, and what a browser knows to come from
      another site is refused;
    - a session's id goes into its cookie and nowhere else; no answer here is kept by any cache;
    - the logout of a provider is no browser's, and is believed by its signature alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, urlencode

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

import console
from access.common_passwords import PasswordBreached, PasswordCommon, PasswordNamesSomebody
from access.passwords import PasswordTooWeak, TooManySignIns
from access.policy import Action
from access.sessions import Begun, Kept, digest_of
from access.steps import StepUpRequired, require_stepped_up
from app import openapi, problems
from app.authentication import COOKIE, Authentication, Present, address_of, cookie, cookie_of, is_our_own
from app.lane import body_of
from app.openapi import Schemas
from app.own import Enrolled, Enrolling, Own
from app.signin_types import (
    ByCode,
    ByPasskey,
    ByPassword,
    Enrolment,
    EnrolPasskey,
    EnrolTotp,
    ForPasskey,
    Leave,
    Me,
    NewPassword,
    Nothing,
    Onward,
    OwnFactor,
    PasskeyOptions,
    RecoveryCodes,
    SessionInfo,
    SessionList,
    SignedIn,
    SignInStep,
    StepUp,
    Ways,
)
from app.signing_in import Asking, SignIn, Step
from app.single_sign_on import COOKIE as AWAY
from app.single_sign_on import Departure, LogoutRefused, SingleSignOn
from app.starting import Start
from commands.edge import read_body
from commands.plan import WrongRegion
from commands.signin import LastFactor, Session
from domain.errors import Forbidden, Invalid, NotFound, Rejected
from domain.kernel import OperatorId, parse_id
from domain.operators import FactorUnknown, InvitationRefused, MeansChanged

BODY_BYTES_MAX = 16 * 1024
_NO_STORE = {"Cache-Control": "no-store"}
_encode = msgspec.json.Encoder().encode

Work = Callable[[Request, Any], Awaitable[Response]]
_PUBLIC: tuple[type[Rejected], ...] = (
    problems.SignInFailed,
    problems.CsrfRefused,
    Invalid,
    TooManySignIns,
    problems.Busy,
)
_OWN: tuple[type[Rejected], ...] = (
    problems.Unauthenticated,
    problems.CsrfRefused,
    StepUpRequired,
    Invalid,
    problems.Busy,
)


def router(signing_in: SignIn, authentication: Authentication, start: Start, schemas: Schemas) -> APIRouter:
    """All routes of sign-in."""
    routes = _Routes(signing_in, authentication, start, schemas)
    routes.ways_in()
    routes.passkeys()
    routes.own()
    routes.sessions()
    routes.single_sign_on()
    return routes.made


class _Routes:
    def __init__(self, signing_in: SignIn, authentication: Authentication, start: Start, schemas: Schemas) -> None:
        self.made = APIRouter(tags=["sign-in"])
        self._in, self._own = signing_in, Own(signing_in)
        self._sso = SingleSignOn(signing_in)
        self._who = authentication
        self._start = start
        self._schemas = schemas

    def ways_in(self) -> None:
        shown = console.signin_page()
        fields = {**_NO_STORE, "Content-Security-Policy": console.policy(shown)}

        async def page() -> Response:
            """The sign-in page."""
            return Response(shown, media_type=console.MEDIA_TYPE, headers=fields)

        async def ways() -> Response:
            """By which providers of identities one may come."""
            named = {name: each.provider.label or name for name, each in self._in.providers.items()}
            return _json(Ways(named))

        async def password(request: Request, given: ByPassword) -> Response:
            """Sign in with e-mail address and password: the first factor."""
            return self._stepped(await self._in.by_password(given.email, given.password, _asking(request)))

        async def factor(request: Request, given: ByCode) -> Response:
            """The second factor: a code of an authenticator app, or a recovery code."""
            return _signed_in(await self._in.by_code(given.ticket, given.code, _asking(request)))

        async def step_up(request: Request, given: StepUp) -> Response:
            """Show a second factor again, for what asks for a fresh one."""
            present = await self._who.present(request.scope)
            return _signed_in(
                await self._in.step_up(present, given.code, (given.handle, given.response), _asking(request))
            )

        async def out(request: Request, _given: Nothing) -> Response:
            """Sign out."""
            await self._in.out(await self._who.present(request.scope))
            return _with_cookie(_json(Nothing()), cookie(COOKIE, "", seconds=0))

        self.made.add_api_route("/signin", page, methods=["GET"], include_in_schema=False)
        self._get("/v1/signin", ways, Ways, public=True)
        self._post("/v1/signin/password", ByPassword, SignInStep, password, _PUBLIC, public=True)
        self._post("/v1/signin/factor", ByCode, SignedIn, factor, _PUBLIC, public=True)
        self._post("/v1/signin/step-up", StepUp, SignedIn, step_up, (*_OWN, problems.SignInFailed))
        self._post("/v1/signin/out", Nothing, Nothing, out, _OWN)

    def passkeys(self) -> None:
        async def options(request: Request, given: ForPasskey) -> Response:
            """A challenge for a passkey: alone, after a first factor, or again."""
            present = await self._who.present(request.scope) if given.again else None
            purpose = "step_up" if given.again else "factor" if given.ticket else "signin"
            return _json(PasskeyOptions(*await self._in.challenge(purpose, given.ticket, present)))

        async def verify(request: Request, given: ByPasskey) -> Response:
            """Sign in with a passkey: alone, or after a first factor."""
            return _signed_in(await self._in.by_passkey(given.handle, given.response, given.ticket, _asking(request)))

        options_errors = (*_PUBLIC, problems.Unauthenticated)
        self._post("/v1/signin/passkey/options", ForPasskey, PasskeyOptions, options, options_errors, public=True)
        self._post("/v1/signin/passkey/verify", ByPasskey, SignedIn, verify, _PUBLIC, public=True)

    def own(self) -> None:
        async def me(request: Request) -> Response:
            """Who is signed in here."""
            present = await self._who.present(request.scope)
            return _json(_me(present))

        async def password(request: Request, given: NewPassword) -> Response:
            """Set one's own password; or, by an invitation, come for the first time."""
            if given.invitation or given.operator:
                parse_id("operator", given.operator)
                operator = OperatorId(given.operator)
                return _signed_in(await self._own.join(operator, given.invitation, given.password, _asking(request)))
            present = await self._who.present(request.scope)
            return _signed_in(await self._own.set_password(present, given.password, _asking(request)))

        async def totp(request: Request, given: EnrolTotp) -> Response:
            """Enrol an authenticator app, in two steps."""
            present = await self._who.present(request.scope)
            if not given.handle:
                return _enrolment(await self._own.totp(present))
            return _enrolment(await self._own.totp_shown(present, given.handle, given.code, _asking(request)))

        async def passkey(request: Request, given: EnrolPasskey) -> Response:
            """Enrol a passkey, in two steps."""
            present = await self._who.present(request.scope)
            if not given.handle:
                return _enrolment(await self._own.passkey(present))
            return _enrolment(await self._own.passkey_made(present, given.handle, given.response))

        async def recovery(request: Request, _given: Nothing) -> Response:
            """New recovery codes, in place of those before."""
            present = await self._who.present(request.scope)
            codes, begun = await self._own.recovery_codes(present)
            return _with_cookie(_json(RecoveryCodes(codes)), cookie(COOKIE, begun.id))

        async def remove(request: Request, _given: Nothing) -> Response:
            """Remove one of one's own factors, if another one is left."""
            present = await self._who.present(request.scope)
            begun = await self._own.remove(present, request.path_params["factor"])
            return _with_cookie(_json(Nothing()), cookie(COOKIE, begun.id))

        self._get("/v1/me", me, Me)
        changing = (*_OWN, MeansChanged, problems.SignInFailed)
        guessable = (PasswordTooWeak, PasswordCommon, PasswordNamesSomebody, PasswordBreached)
        joining = (InvitationRefused, WrongRegion, *guessable, TooManySignIns)
        self._post("/v1/me/password", NewPassword, SignedIn, password, (*changing, *joining), public=True)
        shown = changing
        self._post("/v1/me/factors/totp", EnrolTotp, Enrolment, totp, shown)
        self._post("/v1/me/factors/passkey", EnrolPasskey, Enrolment, passkey, shown)
        removed = (*changing, FactorUnknown, LastFactor)
        self._post("/v1/me/factors/{factor}/remove", Nothing, Nothing, remove, removed)
        self._post("/v1/me/recovery-codes", Nothing, RecoveryCodes, recovery, changing)

    def sessions(self) -> None:
        async def listed(request: Request, operator: str = "") -> Response:
            """One's own sessions in this region, or for whoever manages operators those of `operator`."""
            present = await self._whole(request)
            if operator not in ("", present.operator_id):
                present.principal.require(Action.OPERATOR_MANAGE)
                parse_id("operator", operator)
            kept = await self._in.sessions.of(operator or present.operator_id, self._in.now())
            return _json(SessionList([_info(each, present) for each in kept]))

        async def revoke(request: Request, _given: Nothing) -> Response:
            """End a session: one's own, or for whoever manages operators anybody's."""
            present = await self._whole(request)
            named = request.path_params["session"]
            found = await self._in.sessions.at(named)
            if found is None or (
                found.operator != present.operator_id and not present.principal.may(Action.OPERATOR_MANAGE)
            ):
                raise NotFound("no such session")
            if found.operator != present.operator_id:
                require_stepped_up(present.principal, str(Action.OPERATOR_MANAGE), self._in.now())
            await self._in.out(present, named, "revoked")
            return _json(Nothing())

        self._get("/v1/me/sessions", listed, SessionList)
        self._post("/v1/me/sessions/{session}/revoke", Nothing, Nothing, revoke, (*_OWN, NotFound))

    async def _whole(self, request: Request) -> Present:
        """Whoever has shown two factors; by one nobody does more than enrol another. Raises Unauthenticated, StepUpRequired."""
        present = await self._who.present(request.scope)
        if present.session.stepped_up is None:
            require_stepped_up(present.principal, "me.sessions", self._in.now())
        return present

    def single_sign_on(self) -> None:
        async def start(request: Request, provider: str, link: bool = False, again: bool = False) -> Response:
            """Go to a provider of identities: to sign in, to show there anew who one is, or to link one's account."""
            linking = None
            if link:
                present = await self._who.present(request.scope)
                require_stepped_up(present.principal, "me.factors", self._in.now())
                linking = Session(present.operator_id, present.session.means)
            departure = await self._sso.depart(provider, linking=linking, again=again)
            return _leaving(RedirectResponse(departure.url, 303, headers=_NO_STORE), departure)

        async def join(request: Request, given: Leave) -> Response:
            """Go to a provider of identities, to join by an invitation: its secret is in no address."""
            parse_id("operator", given.operator)
            invitation = f"{given.operator}:{given.invitation}"
            departure = await self._sso.depart(request.path_params["provider"], invitation=invitation)
            return _leaving(_json(Onward(departure.url)), departure)

        async def callback(
            request: Request, provider: str, state: str = "", code: str = "", iss: str | None = None
        ) -> Response:
            """Come back from a provider of identities; on to the sign-in page."""
            self._start.require()
            browser = cookie_of(request.scope, AWAY)
            try:
                step = await self._sso.arrive(provider, (code, state, iss), browser, _asking(request))
            except (problems.SignInFailed, problems.ProviderUnavailable, InvitationRefused, MeansChanged) as refused:
                return _with_cookie(_on(failed=refused.code), cookie(AWAY, "", seconds=0))
            begun = step.begun
            onward = _on() if begun else _on(ticket=step.ticket, factors=" ".join(step.factors))
            kept = [cookie(COOKIE, begun.id)] if begun else []
            return _with_cookie(onward, cookie(AWAY, "", seconds=0), *kept)

        async def logout(request: Request, provider: str) -> Response:
            """A provider says that somebody has signed out there (OpenID Connect Back-Channel Logout 1.0)."""
            self._start.require()
            form = parse_qs((await body_of(request.receive, BODY_BYTES_MAX)).decode("latin-1"))
            await self._sso.signed_out(provider, (form.get("logout_token") or [""])[0])
            return _json(Nothing())

        one = "/v1/signin/oidc/{provider}"
        errors = (NotFound, problems.ProviderUnavailable)
        self._post(f"{one}/start", Leave, Onward, join, (*errors, *_PUBLIC), public=True)
        self._redirects(f"{one}/start", start, (*errors, problems.Unauthenticated, StepUpRequired))
        self._redirects(f"{one}/callback", callback, (*errors, problems.Busy))
        self.made.add_api_route(
            f"{one}/logout",
            logout,
            methods=["POST"],
            summary="A provider says that somebody has signed out there",
            openapi_extra={
                **openapi.UNGUARDED,
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/x-www-form-urlencoded": {
                            "schema": {"type": "object", "properties": {"logout_token": {"type": "string"}}}
                        }
                    },
                },
                "responses": self._schemas.refusals((*errors, LogoutRefused, problems.BodyTooLarge, problems.Busy)),
            },
        )

    # How routes are added

    def _post(
        self,
        path: str,
        body: Any,
        answer: Any,
        work: Work,
        errors: Sequence[type[Rejected]],
        *,
        public: bool = False,
    ) -> None:
        decoder = msgspec.json.Decoder(body)

        async def endpoint(request: Request) -> Response:
            if not is_our_own(request.scope):
                raise problems.CsrfRefused
            if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                raise Invalid("the body is application/json")
            self._start.require()
            return await work(request, read_body(decoder, await body_of(request.receive, BODY_BYTES_MAX)))

        self.made.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            name=f"signin.{work.__name__}",
            summary=(work.__doc__ or "").partition(".")[0],
            openapi_extra={
                **(openapi.UNGUARDED if public else openapi.BY_SESSION),
                "parameters": openapi.path_parameters(path),
                "requestBody": {"required": True, "content": self._schemas.json(body)},
                "responses": self._schemas.refusals((*errors, problems.BodyTooLarge)),
            },
            responses={200: {"description": "Done", "content": self._schemas.json(answer)}},
        )

    def _get(self, path: str, work: Any, answer: Any, *, public: bool = False) -> None:
        self.made.add_api_route(
            path,
            work,
            methods=["GET"],
            name=f"signin.{work.__name__}",
            summary=(work.__doc__ or "").partition(".")[0],
            openapi_extra={
                **(openapi.UNGUARDED if public else openapi.BY_SESSION),
                "x-reads": [],
                "responses": self._schemas.refusals(() if public else (problems.Unauthenticated, Forbidden, Invalid)),
            },
            responses={200: {"description": "Found", "content": self._schemas.json(answer)}},
        )

    def _redirects(self, path: str, work: Any, errors: Sequence[type[Rejected]]) -> None:
        self.made.add_api_route(
            path,
            work,
            methods=["GET"],
            status_code=303,
            summary=(work.__doc__ or "").partition(":")[0].partition(";")[0],
            openapi_extra={**openapi.UNGUARDED, "x-reads": [], "responses": self._schemas.refusals((*errors, Invalid))},
            responses={303: {"description": "Where to go on"}},
        )

    def _stepped(self, step: Step) -> Response:
        made = _session_of(step.begun) if step.begun else None
        answer = _json(SignInStep(step.ticket, list(step.factors), made))
        return _with_cookie(answer, cookie(COOKIE, step.begun.id)) if step.begun else answer


def _asking(request: Request) -> Asking:
    return Asking(address_of(request.scope), cookie_of(request.scope, COOKIE))


def _json(answer: msgspec.Struct) -> Response:
    return Response(_encode(answer), media_type="application/json", headers=_NO_STORE)


def _with_cookie(response: Response, *cookies: str) -> Response:
    for each in cookies:
        response.headers.append("Set-Cookie", each)
    return response


def _leaving(response: Response, departure: Departure) -> Response:
    """With the cookie without which nobody comes back."""
    return _with_cookie(response, cookie(AWAY, departure.browser, same_site="Lax", seconds=600))


def _on(**told: str) -> Response:
    """To the sign-in page. What it is told stands behind the #, which no server hears of."""
    return RedirectResponse("/signin" + ("#" + urlencode(told) if told else "#done"), 303, headers=_NO_STORE)


def _session_of(begun: Begun) -> SignedIn:
    session = begun.session
    return SignedIn(session.operator, session.csrf, session.stepped_up is None)


def _signed_in(begun: Begun) -> Response:
    return _with_cookie(_json(_session_of(begun)), cookie(COOKIE, begun.id))


def _enrolment(made: Enrolling | Enrolled) -> Response:
    if isinstance(made, Enrolling):
        return _json(Enrolment("", made.handle, made.secret, made.address, made.options))
    signed_in = _session_of(made.begun) if made.begun else None
    answer = _json(Enrolment(made.factor, signed_in=signed_in))
    return _with_cookie(answer, cookie(COOKIE, made.begun.id)) if made.begun else answer


def _me(present: Present) -> Me:
    principal, session = present.principal, present.session
    factors = [OwnFactor(id_, str(each.kind)) for id_, each in present.standing.operator.factors.items()]
    return Me(
        session.operator,
        session.csrf,
        session.stepped_up is None,
        session.method,
        session.stepped_up,
        sorted(principal.roles),
        sorted(principal.granted),
        factors,
    )


def _info(kept: Kept, present: Present) -> SessionInfo:
    each, current = kept.session, kept.digest == digest_of(present.id)
    return SessionInfo(kept.digest, each.operator, each.method, each.created, each.seen, each.stepped_up, current)
