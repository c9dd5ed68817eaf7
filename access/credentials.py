"""
By what an operator signs in, read from the log itself: what they enrolled a moment ago counts, what was removed does not.

Invariants:
    - a secret is opened for the moment of a check, and kept nowhere;
    - what was spent by a sign-in in another region is spent, as far as that region's log is held here;
    - where the operator's data key is not held there are no secrets: passkeys and providers of identities are left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from access.passkeys import Passkey
from domain.kernel import OperatorId, Sealed
from domain.operators import FactorEnrolled, FactorKind, Invited, Operator, PasswordSet
from domain.operators import stream as stream_of
from domain.signins import SIGNINS, Signins, together
from domain.signins import stream as signins_of
from eventstore.log import Resumed, Streams, state_schema
from eventstore.record import Codec
from eventstore.vault import Vault

EMAIL = "operator_email"
"""The blind index by which operators are found."""
_PASSWORD = "password"  # noqa: S105 — a name


class Credentials(NamedTuple):
    """`password`: the encoded hash. `secrets`: by factor, of a one-time password its secret, of recovery codes their digests."""

    operator_id: OperatorId
    operator: Operator
    signins: Signins
    password: str | None
    secrets: Mapping[str, str]

    def factors(self, kind: FactorKind) -> list[str]:
        return [id_ for id_, factor in self.operator.factors.items() if factor.kind is kind]

    def passkeys(self) -> list[Passkey]:
        """Each as far as it has counted."""
        counts = self.signins.counts
        return [
            Passkey(id_, each.credential, each.public_key, counts.get(each.credential, 0))
            for id_, each in self.operator.factors.items()
            if each.kind is FactorKind.PASSKEY
        ]

    def kinds(self) -> list[str]:
        """Which second factors may be shown here, in words."""
        usable = {each.kind for id_, each in self.operator.factors.items() if self._is_usable(id_, each.kind)}
        return [str(kind) for kind in FactorKind if kind in usable]

    @property
    def has_second_factor(self) -> bool:
        """One that is no recovery code."""
        return self.operator.has_second_factor

    def _is_usable(self, factor: str, kind: FactorKind) -> bool:
        return kind is FactorKind.PASSKEY or factor in self.secrets


class CredentialsReader:
    """Reads those of the operators whose streams are held here; `log` is the one that is written."""

    def __init__(self, log: str, streams: Streams, vault: Vault, codec: Codec) -> None:
        self._log = log
        self._streams = streams
        self._vault = vault
        self._codec = codec

    async def find(self, email: str) -> list[OperatorId]:
        """Whose e-mail address it is, however it is written."""
        return [OperatorId(f"operator_{suffix}") for suffix in await self._vault.find(EMAIL, email)]

    async def of(self, operator_id: OperatorId) -> Credentials:
        """Of an operator, whether or not there is one. Raises InvalidId."""
        stream = stream_of(operator_id)
        operator, sealed = Operator(), dict[str, tuple[str, str, Sealed]]()
        for entry in (await self._streams.load({stream.name: 0})).get(stream.name, []):
            read = self._codec.decode(entry)
            match read.event:
                case PasswordSet(hash=Sealed() as value):
                    sealed[_PASSWORD] = (read.body.id, "data.hash", value)
                case FactorEnrolled(factor=factor, secret=Sealed() as value):
                    sealed[factor] = (read.body.id, "data.secret", value)
            operator = stream.aggregate.evolve(operator, read.event, read.at)
        opened = await self._opened(operator, sealed)
        password = opened.pop(_PASSWORD, None)
        signins = await self._signins(operator_id)
        return Credentials(operator_id, operator, signins, password, opened)

    async def elsewhere(self) -> Sequence[str]:
        """The other logs that are held here."""
        return [log for log in await self._streams.logs() if log != self._log]

    async def called(self, operator_id: OperatorId, *, invitation: str | None = None) -> list[str]:
        """The operator's name and e-mail address, as far as they open here. `invitation` (the digest of its secret): nothing, unless
        that is theirs, so that nobody tries names with an invitation that is not good. Raises InvalidId, CannotOpen.
        """
        stream = stream_of(operator_id)
        operator, sealed = Operator(), dict[str, tuple[str, str, Sealed]]()
        for entry in (await self._streams.load({stream.name: 0})).get(stream.name, []):
            read = self._codec.decode(entry)
            if isinstance(read.event, Invited):
                told = {"data.name": read.event.name, "data.email": read.event.email}
                sealed = {
                    path: (read.body.id, path, value) for path, value in told.items() if isinstance(value, Sealed)
                }
            operator = stream.aggregate.evolve(operator, read.event, read.at)
        if invitation is not None and invitation != operator.invitation:
            return []
        return list((await self._open(operator, sealed)).values())

    async def _opened(self, operator: Operator, sealed: Mapping[str, tuple[str, str, Sealed]]) -> dict[str, str]:
        """The secrets in the clear, as far as the key is held here. Raises CannotOpen if it is another."""
        wanted = {name: each for name, each in sealed.items() if name == _PASSWORD or name in operator.factors}
        return await self._open(operator, wanted)

    async def _open(self, operator: Operator, wanted: Mapping[str, tuple[str, str, Sealed]]) -> dict[str, str]:
        if not operator.key:
            return {}
        key = (await self._vault.keys({operator.key: operator.commitment})).get(operator.key)
        if key is None:
            return {}
        return {name: key.open(value, event_id=id_, path=path) for name, (id_, path, value) in wanted.items()}

    async def _signins(self, operator_id: OperatorId) -> Signins:
        streams = [signins_of(log, operator_id) for log in (self._log, *await self.elsewhere())]
        found = await self._streams.resume({each.name: state_schema(each.aggregate) for each in streams})
        own, *elsewhere = (self._folded(found[each.name]) for each in streams)
        return together(own, elsewhere)

    def _folded(self, resumed: Resumed) -> Signins:
        state: Any = (
            msgspec.json.decode(resumed.snapshot.state, type=SIGNINS.state) if resumed.snapshot else SIGNINS.initial
        )
        for entry in resumed.entries:
            read = self._codec.decode(entry)
            state = SIGNINS.evolve(state, read.event, read.at)
        found: Signins = state
        return found
