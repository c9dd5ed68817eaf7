"""
Tree heads in a deployment: whose keys there are, who witnesses whom, and the processes that sign.

Invariant: private keys stay in the folders of those who sign with them; the policy holds public keys only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from app.settings import Settings, SettingsError

if TYPE_CHECKING:
    from eventstore.note import SigningKey
    from replication.config import Config
    from verifier.policy import Policy

WITNESS_KEY = "witness.key"
_QUORUM = "regions"


def make_keys(settings: Sequence[Settings]) -> None:
    """Keys for the logs and witnesses of these regions, made once, and the policy file that names them all.

    The policy wants, for any log, one witness among the regions. To a file that somebody has changed, only the keys of regions
    that have joined since are added; whether such a witness counts is left to them.
    """
    keys = [region_keys(region) for region in settings]
    named = list(zip(settings, keys, strict=True))
    for file in {region.needed("witness", "COUNTROOM_POLICY")[0] for region in settings}:
        there = file.read_text() if file.exists() else ""
        known = [(region, each) for region, each in named if each[1] in there]
        if there in {"", _policy(known)}:
            file.write_text(_policy(named))
        elif missing := [each for each in named if each not in known and each[0].region in each[0].joined]:
            file.write_text(there + "".join(_lines(missing)))


def _policy(named: Sequence[tuple[Settings, tuple[str, str]]]) -> str:
    """The file that names these regions, by their keys."""
    made = "".join(_lines(named))
    if len(named) > 1:
        made += f"group {_QUORUM} any {' '.join(region.region for region, _ in named)}\nquorum {_QUORUM}\n"
    else:
        made += "quorum none\n"
    return f"# Whom to trust: C2SP tlog-policy. Outside witnesses are added here, with their URLs.\n{made}"


def _lines(named: Sequence[tuple[Settings, tuple[str, str]]]) -> list[str]:
    logs = [f"log {log}\n" for _, (log, _) in named]
    return logs + [f"witness {region.region} {witness}\n" for region, (_, witness) in named]


def name_next(text: str, before: str, after: str, log: str, witness: str) -> str:
    """A policy that also names the log with which a region goes on, and it as a witness, by their vkeys.

    Where the witness `before` is a member of a group or the quorum, either of the two counts from now on: heads that it has cosigned
    stay witnessed, and one region stays one. Again, it changes nothing.
    """
    if log in text:
        return text
    either = f"{before}-or-{after}"
    lines, named, grouped = [], False, False
    for line in text.splitlines():
        keyword, *items = line.split() or [""]
        members = items[2:] if keyword == "group" else items[:1] if keyword == "quorum" else []
        if before in members:
            if not grouped:
                lines.append(f"group {either} any {before} {after}")
                grouped = True
            line = " ".join([keyword, *(either if each == before else each for each in items)])  # noqa: PLW2901
        lines.append(line)
        if keyword == "witness" and items[:1] == [before]:
            lines += [f"log {log}", f"witness {after} {witness}"]
            named = True
    if not named:
        lines = [f"log {log}", f"witness {after} {witness}", *lines]
    return "\n".join(lines) + "\n"


def region_keys(settings: Settings) -> tuple[str, str]:
    """The public keys of the region's log and of the region as a witness; private keys are made where there are none. The custody
    key is made too, and vouched for anew by those keys that sign for the log now.
    """
    from eventstore import signer

    (folder,) = settings.needed("checkpointer", "COUNTROOM_SIGNER")
    log = signer.create(folder, settings.origin)
    if settings.custody:
        _make_custody_key(settings.custody, settings.origin, signer.active(folder, settings.origin))
    return log, _witness_vkey(settings)


def _witness_vkey(settings: Settings) -> str:
    from eventstore.note import SigningKey
    from verifier.note import Kind, key_of

    (folder,) = settings.needed("witness", "COUNTROOM_WITNESS")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / WITNESS_KEY
    if not file.exists():
        SigningKey.generate(f"{settings.origin}/witness").write(file)
    key = SigningKey.from_file(file)
    return str(key_of(key.name, Kind.COSIGNATURE, key.key))


def _make_custody_key(folder: Path, origin: str, signing: Sequence[SigningKey]) -> None:
    """The key itself is made once, the note that names it anew: `signing` are those that sign for the log now."""
    from eventstore.note import SigningKey, signed
    from replication import keys

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / keys.KEY_FILE
    if not file.exists():
        SigningKey.generate(keys.custody_name(origin)).write(file)
    draft = folder / f"{keys.NOTE_FILE}.new"
    draft.write_bytes(signed(keys.custody_text(origin, SigningKey.from_file(file).vkey), signing))
    draft.replace(folder / keys.NOTE_FILE)


async def checkpoint(settings: Settings, config: Config, stop: asyncio.Event) -> None:
    """Play the checkpointer. Raises SettingsError."""
    from app import closings
    from eventstore.signer import Signer, SignerError
    from replication.checkpointer import Heads, run_checkpointer

    folder, policy = settings.needed("checkpointer", "COUNTROOM_SIGNER", "COUNTROOM_POLICY")
    others = [region for region in settings.regions if region != settings.region]
    closings.refuse_closed(folder)
    try:
        opened = Signer.open(folder, settings.origin)
    except SignerError as error:
        raise SettingsError(str(error)) from error
    with closing(opened) as signer:
        await run_checkpointer(config, Heads(signer, read_policy(policy), others), stop)


async def witness(settings: Settings, config: Config, stop: asyncio.Event) -> None:
    """Play the witness of all other regions. Raises SettingsError."""
    from eventstore.note import SigningKey
    from replication.witness import Keys, run_witness

    folder, policy = settings.needed("witness", "COUNTROOM_WITNESS", "COUNTROOM_POLICY")
    logs = tuple(log.key for log in read_policy(policy).logs)
    keys = Keys(SigningKey.from_file(folder / WITNESS_KEY), folder, logs)
    others = [region for region in settings.regions if region != settings.region]
    async with asyncio.TaskGroup() as group:
        group.create_task(stop.wait())  # a role that ended would end its process, also where there is nobody else
        for origin in others:
            group.create_task(run_witness(config, origin, keys, stop))


def refuse_unnamed(policy: Policy, origins: Sequence[str]) -> None:
    """Raises SettingsError unless the policy names a key of each of these logs: one that goes on with a closed log needs no release."""
    named = {log.key.name for log in policy.logs}
    if unnamed := [origin for origin in origins if origin not in named]:
        raise SettingsError(
            f"{unnamed[0]} goes on with a closed log, and the policy names no key of it: add the line that `countroom region keys` prints"
        )


def read_policy(file: Path) -> Policy:
    """Raises SettingsError."""
    from verifier.policy import PolicyError, parse_policy

    try:
        return parse_policy(file.read_bytes())
    except (OSError, PolicyError) as error:
        raise SettingsError(f"{file}: {error}") from error
