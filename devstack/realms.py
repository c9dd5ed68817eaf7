"""
Who may say what to whom over NATS: one realm for everything that a region originates, a star around its server.

At EU's server the realm of EU is the account R_EU, with the stream LOG_EU, and for each other region a gate: an account of its
own, FROM_US, in which that region's link arrives and nothing else lives. What passes between gate and realm is named here,
message kind by message kind:

    asked of EU      rpc.EU.>, and of JetStream: the state of LOG_EU, consumers of it, messages of it
    told to EU       ack.EU.US, answer.EU.US.>, cmd.EU.US.*
    heard of EU      hint.EU.>, ask.EU.US.>, reply.EU.US.>

At US's server the account R_EU is the other end of that link, where US's processes speak to EU; it has no JetStream.

Invariants:
    - what a link may do is enforced by the *origin's* server: it needs no trust in the region at the other end;
    - only EU's own service user publishes log.EU, changes LOG_EU, or is anyone but US in ack.EU.US, answer.EU.US.> and cmd.EU.US.*;
    - what EU and one region say to each other, commands and their answers, questions, requests, no third region hears: it is
      in another account;
    - an answer to what was asked of EU goes back through the gate to who asked. A subject of EU's that somebody names as
      theirs to be answered on (log.EU, ack.EU.CA) is, in their gate, a subject of nobody's;
    - a link's key opens links only, a service's key none.
"""

from collections.abc import Sequence

from devstack.region import Region
from devstack.seeds import public_key

Account = dict[str, object]

_ANSWERED_FOR = "1m"  # a pull is answered at least every second, as long as it stands
_LINKS = ["LEAFNODE"]
_SERVICES = ["STANDARD"]


def accounts(region: Region, others: Sequence[Region]) -> dict[str, Account]:
    """All accounts of a region's server."""
    made: dict[str, Account] = {"SYS": {"users": []}, f"R_{region.token}": _own_realm(region, others)}
    for other in others:
        made[_gate_name(other)] = _gate(region, other)
        made[f"R_{other.token}"] = _local_side(region, other)
    return made


def _gate_name(other: Region) -> str:
    return f"FROM_{other.token}"


def _asked(origin: Region) -> list[str]:
    """Of the origin's processes and, within what its server answers for JetStream, of its stream."""
    log = f"LOG_{origin.token}"
    return [
        f"rpc.{origin.token}.>",
        "$JS.API.INFO",
        f"$JS.API.STREAM.INFO.{log}",
        f"$JS.API.DIRECT.GET.{log}.>",
        f"$JS.API.CONSUMER.CREATE.{log}.>",
        f"$JS.API.CONSUMER.INFO.{log}.>",
        f"$JS.API.CONSUMER.DELETE.{log}.>",
        _pull(origin),
    ]


def _pull(origin: Region) -> str:
    return f"$JS.API.CONSUMER.MSG.NEXT.LOG_{origin.token}.>"


def _told(origin: Region, remote: Region) -> list[str]:
    o, r = origin.token, remote.token
    return [f"ack.{o}.{r}", f"answer.{o}.{r}.>", f"cmd.{o}.{r}.*"]


def _heard(origin: Region, remote: Region) -> list[str]:
    o, r = origin.token, remote.token
    return [f"hint.{o}.>", f"ask.{o}.{r}.>", f"reply.{o}.{r}.>"]


def _own_realm(region: Region, others: Sequence[Region]) -> Account:
    gates = [_gate_name(other) for other in others]
    exports: list[dict[str, object]] = [{"service": each, "accounts": gates} for each in _asked(region)]
    for export in exports:
        if export["service"] == _pull(region):
            export |= {"response": "stream", "threshold": _ANSWERED_FOR}
    imports = []
    for other, gate in zip(others, gates, strict=True):
        exports += [{"stream": each, "accounts": [gate]} for each in _heard(region, other)]
        imports += [{"stream": {"account": gate, "subject": each}} for each in _told(region, other)]
    mine = region.token
    commands = _service(
        region, "commands-own", publish=[f"reply.{mine}.>"], subscribe=[f"cmd.{mine}.{each.token}.*" for each in others]
    )
    users = [_service(region, "own"), *([commands] if others else [])]
    return {"jetstream": "enabled", "users": users, "exports": exports if others else [], "imports": imports}


def _gate(origin: Region, remote: Region) -> Account:
    """What the remote region may send to the origin (publish) and hear from it (subscribe), twice: as permissions and as imports."""
    realm, o = f"R_{origin.token}", origin.token
    asked, told, heard = _asked(origin), _told(origin, remote), _heard(origin, remote)
    through_the_domain = [each.replace("$JS.API.", f"$JS.{o}.API.") for each in asked]
    permissions = {"publish": {"allow": [*through_the_domain, *told]}, "subscribe": {"allow": ["_INBOX.>", *heard]}}
    link = {
        "nkey": public_key(remote, f"link-{origin.name}"),
        "permissions": permissions,
        "allowed_connection_types": _LINKS,
    }
    imports = [{"service": {"account": realm, "subject": each}} for each in asked]
    imports += [{"stream": {"account": realm, "subject": each}} for each in heard]
    return {"users": [link], "imports": imports, "exports": [{"stream": each, "accounts": [realm]} for each in told]}


def _service(
    region: Region, name: str, *, publish: list[str] | None = None, subscribe: list[str] | None = None
) -> dict[str, object]:
    """A user of the region's processes; without lists, it may do everything in its account."""
    user: dict[str, object] = {"nkey": public_key(region, name), "allowed_connection_types": _SERVICES}
    if publish is not None and subscribe is not None:
        user["permissions"] = {"publish": {"allow": publish}, "subscribe": {"allow": subscribe}}
    return user


def _local_side(region: Region, other: Region) -> Account:
    """Denying the log here as well only spares an honest mistake the time-out: the other's server refuses it anyway."""
    user = _service(region, f"in-{other.name}") | {"permissions": {"publish": {"deny": ["log.>"]}}}
    o, r = other.token, region.token
    commands = _service(region, f"commands-in-{other.name}", publish=[f"cmd.{o}.{r}.*"], subscribe=[f"reply.{o}.{r}.>"])
    return {"users": [user, commands]}
