"""Operators who are invited, given roles and let in, as two administrators do it by command."""

from __future__ import annotations

from typing import Any

from access.directory import Directory
from app import founding
from commands.approvals import AwaitingApproval
from commands.operators import InviteOperator, OperatorInvited, digest_of
from commands.plan import Receipt
from commands.signin import join
from domain.kernel import OperatorId
from tests.commands.house import CODEC, House

ANNA, BERT = "operator:anna", "operator:bert"
ADMIN = ("administrator",)
MARIA = {"name": "Maria Muster", "email": "maria@house.example", "person": "staff-17"}


async def invite(house: House, **more: object) -> OperatorInvited:
    receipt = await house.process.post("/v1/operators", {**MARIA, **more}, actor=ANNA, roles=ADMIN)
    assert isinstance(receipt.answer, OperatorInvited)
    return receipt.answer


async def confirmed(house: House, invited: OperatorInvited, actor: str = BERT, **who: Any) -> None:
    await house.process.post(f"/v1/operators/{invited.operator}/confirm", actor=actor, roles=ADMIN, **who)


async def joined(house: House, *roles: str, **more: object) -> str:
    """An active operator with these roles."""
    invited = await invite(house, **more)
    await confirmed(house, invited)
    for role in roles:
        await agreed(house, f"/v1/operators/{invited.operator}/roles", {"role": role})
    await house.process.decider.decide(
        join(OperatorId(invited.operator), digest_of(invited.invitation or ""), lambda _operator: [], house.now)
    )
    return invited.operator


async def asked(house: House, path: str, body: object) -> AwaitingApproval:
    receipt = await house.process.post(path, body, actor=ANNA, roles=ADMIN)
    assert isinstance(receipt.answer, AwaitingApproval)
    return receipt.answer


async def approve(house: House, waits: AwaitingApproval, **who: Any) -> Receipt:
    path = f"/v1/approvals/{waits.approval}/approve"
    return await house.process.post(path, {"hash": waits.hash}, **{"actor": BERT, "roles": ADMIN, **who})


async def agreed(house: House, path: str, body: object) -> None:
    await approve(house, await asked(house, path, body))


def directory(house: House) -> Directory:
    """Of another process, that has read nothing yet."""
    return Directory(house.log, CODEC, now=lambda: house.now)


async def let_in(house: House, secret: str | None) -> Any:
    return await directory(house).by_token(digest_of(secret or ""))


def commands(*people: str) -> list[InviteOperator]:
    given = [{"name": each, "email": f"{each}@house.example", "person": each} for each in people]
    return [InviteOperator(**each) for each in given]


def founders(house: House) -> founding.House:
    return founding.House("eu", house.process.decider, house.vault, house.log)  # type: ignore[arg-type]
