"""`countroom operators …`: the first administrators, further ones when too few are left, and who works here, on the machine that
holds a region.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
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

operators = cyclopts.App(
    name="operators",
    help="Who works here: invite the first administrators, or further ones when too few are left; list all.",
)

_Region = Annotated[
    str | None, Parameter(help="Which of the regions in the data folder; else the environment's settings.")
]
_Data = Annotated[Path, Parameter(help="Folder of the regions' data.")]
_Names = Annotated[list[str], Parameter(help="Their name; give all three options once for each.")]
_Emails = Annotated[list[str], Parameter(help="Their e-mail address.")]
_People = Annotated[list[str], Parameter(help="Who is behind the account: a staff number or the like, no name.")]
_Url = Annotated[str, Parameter(help="Where people reach the region.")]
_Json = Annotated[bool, Parameter(help="End with one JSON object on standard output.", negative="")]


@operators.command
def bootstrap(
    *,
    name: _Names,
    email: _Emails,
    person: _People,
    url: _Url = "http://127.0.0.1:8100",
    region: _Region = None,
    data: _Data = Path(".data"),
    json: _Json = False,
) -> None:
    """Invite the first administrators, once ever (1: there were some); prints a link for each, good once. Give at least two: they approve each
    other's changes of roles.
    """
    from app import founding

    _invite((name, email, person), url, place(region, data), founding.bootstrap, json=json)
    if len(set(person)) == 1:
        sys.stderr.write("only one person was invited: nobody can approve what they want to change\n")


@operators.command
def recover(
    *,
    name: _Names,
    email: _Emails,
    person: _People,
    without: Annotated[
        list[str] | None, Parameter(help="An operator whose account is lost or not theirs any more; suspended with it.")
    ] = None,
    url: _Url = "http://127.0.0.1:8100",
    region: _Region = None,
    data: _Data = Path(".data"),
    json: _Json = False,
) -> None:
    """Invite further administrators when fewer than two persons are left, without those named (1: two are); prints a link for each, good
    once. It stands in the log, as done by nobody inside.
    """
    from app import founding
    from domain.kernel import OperatorId

    lost = [OperatorId(each) for each in without or []]

    async def work(house: Any, invited: Any) -> list[Any]:
        return list(await founding.recover(house, invited, lost))

    _invite((name, email, person), url, place(region, data), work, json=json)


def _invite(
    people: tuple[list[str], list[str], list[str]],
    url: str,
    at: tuple[str, str, Path],
    work: Callable[[Any, Any], Awaitable[Any]],
    *,
    json: bool,
) -> None:
    """Let `work` invite them, and print their links. Ends with 1 where there are administrators. Raises SettingsError."""
    from app import founding
    from commands.edge import read_body
    from commands.operators import InviteOperator
    from domain.bootstraps import AlreadyBootstrapped, NotLost
    from domain.errors import Rejected
    from eventstore.writer import Unavailable

    if len({len(each) for each in people}) > 1:
        raise SettingsError("give a name, an e-mail address and a person for each")
    (where, dsn, file), decoder = at, msgspec.json.Decoder(InviteOperator)

    async def run() -> list[Any]:
        async with founding.house(dsn, where, file) as house:
            return list(await work(house, invited))

    try:
        given = [{"name": one, "email": two, "person": three} for one, two, three in zip(*people, strict=True)]
        invited = [read_body(decoder, msgspec.json.encode(each)) for each in given]
        made = asyncio.run(run())
    except (AlreadyBootstrapped, NotLost) as error:
        sys.stderr.write(f"countroom: {error}\n")
        sys.exit(1)
    except (Rejected, Unavailable) as error:
        raise SettingsError(str(error)) from error
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
