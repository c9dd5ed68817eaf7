"""`countroom operators …`: the first administrators, and who works here, on the machine that holds a region."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
import msgspec
from cyclopts import Parameter

from app.settings import SettingsError
from app.vault import place

if TYPE_CHECKING:
    from access.directory import Standing

operators = cyclopts.App(name="operators", help="Who works here: invite the first administrators, list all.")

_Region = Annotated[
    str | None, Parameter(help="Which of the regions in the data folder; else the environment's settings.")
]
_Data = Annotated[Path, Parameter(help="Folder of the regions' data.")]
_Json = Annotated[bool, Parameter(help="End with one JSON object on standard output.", negative="")]


@operators.command
def bootstrap(
    *,
    name: Annotated[list[str], Parameter(help="Their name; give all three options once for each.")],
    email: Annotated[list[str], Parameter(help="Their e-mail address.")],
    person: Annotated[list[str], Parameter(help="Who is behind the account: a staff number or the like, no name.")],
    url: Annotated[str, Parameter(help="Where people reach the region.")] = "http://127.0.0.1:8100",
    region: _Region = None,
    data: _Data = Path(".data"),
    json: _Json = False,
) -> None:
    """Invite the first administrators, once ever (1: there were some); prints a link for each, good once. Give at least two: they approve each
    other's changes of roles.
    """
    from app import founding
    from commands.edge import read_body
    from commands.operators import InviteOperator
    from domain.bootstraps import AlreadyBootstrapped
    from domain.errors import Rejected
    from eventstore.writer import Unavailable

    if not len(name) == len(email) == len(person):
        raise SettingsError("give a name, an e-mail address and a person for each")
    where, dsn, file = place(region, data)
    decoder = msgspec.json.Decoder(InviteOperator)

    async def work() -> list[Any]:
        async with founding.house(dsn, where, file) as house:
            return list(await founding.bootstrap(house, invited))

    try:
        rows = zip(name, email, person, strict=True)
        given = [{"name": one, "email": two, "person": three} for one, two, three in rows]
        invited = [read_body(decoder, msgspec.json.encode(each)) for each in given]
        made = asyncio.run(work())
    except AlreadyBootstrapped as error:
        sys.stderr.write(f"countroom: {error}\n")
        sys.exit(1)
    except (Rejected, Unavailable) as error:
        raise SettingsError(str(error)) from error
    if len(set(person)) == 1:
        sys.stderr.write("only one person was invited: nobody can approve what they want to change\n")
    links = [f"{url}/signin#operator={each.operator}&invitation={each.invitation}" for each in made]
    if json:
        found = [{"operator": each.operator, "link": link} for each, link in zip(made, links, strict=True)]
        sys.stdout.write(msgspec.json.encode({"operators": found}).decode() + "\n")
    else:
        told = [
            f"{each.operator}, until {each.until:%Y-%m-%d %H:%M} UTC\n  {link}"
            for each, link in zip(made, links, strict=True)
        ]
        sys.stdout.write("\n".join(told) + "\n")


@operators.command(name="list")
def list_(*, region: _Region = None, data: _Data = Path(".data"), json: _Json = False) -> None:
    """All operators: who they are, whether they may act, and by which roles."""
    _, dsn, _ = place(region, data)
    from app import founding

    shown = [_shown(each) for each in asyncio.run(founding.everybody(dsn))]
    if json:
        sys.stdout.write(msgspec.json.encode({"operators": shown}).decode() + "\n")
    for each in () if json else shown:
        roles = ", ".join(each["roles"]) or "no role"
        sys.stdout.write(f"{each['operator']}  {each['status']:9}  {each['person']}  {roles}\n")


@operators.command
def show(
    operator: Annotated[str, Parameter(help="An identifier, operator_….")],
    *,
    region: _Region = None,
    data: _Data = Path(".data"),
) -> None:
    """One operator, as JSON; 1: there is none. Names and addresses are not shown: they are for GET /v1/operators."""
    _, dsn, _ = place(region, data)
    from app import founding

    for each in asyncio.run(founding.everybody(dsn)):
        if each.operator_id == operator:
            sys.stdout.write(msgspec.json.format(msgspec.json.encode(_shown(each))).decode() + "\n")
            return
    sys.stderr.write(f"countroom: there is no {operator}\n")
    sys.exit(1)


def _shown(standing: Standing) -> dict[str, Any]:
    state, now = standing.operator, datetime.now(UTC)
    return {
        "operator": standing.operator_id,
        "status": str(state.status),
        "person": state.person,
        "roles": {role: state.roles[role] for role in sorted(state.holds(now))},
        "brands": state.brands,
        "countries": state.countries,
        "has_password": state.has_password,
        "factors": sorted(str(each.kind) for each in state.factors.values()),
    }
