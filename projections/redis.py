"""
Read models in Redis: one script applies a batch and moves the positions, if they stand where the caller read them.

Keys of a projection lie in one hash slot: countroom:{<name>}:live names the live generation g, and
countroom:{<name>}:<g>:vector says where it stands, :at when it was last moved, :code by which code, :keys which other keys are its data.

Invariants:
    - a batch is applied once, however often it is sent: the second time the vector has moved;
    - a flush takes the vector too, so it is noticed, and the projection begins again from zero by itself;
    - if a write fails half-way the vector goes, with the same effect;
    - all changes are increments: the result does not depend on the order of batches of different logs.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import msgspec
from redis.asyncio import Redis

from projections.memory import Tables
from projections.projection import Batch, Events, Moved, Position, Snapshot, Standing, StateHash, Vector
from projections.state import Chunk, Table, Value
from projections.version import CODE

_CLEAR = """#!lua
local function clear(generation)
    local keys = KEYS[1] .. generation .. ':keys'
    for _, key in ipairs(redis.call('SMEMBERS', keys)) do redis.call('UNLINK', key) end
    local own = KEYS[1] .. generation
    redis.call('UNLINK', keys, own .. ':vector', own .. ':at', own .. ':code')
end
"""
# KEYS[1]: countroom:{<name>}: in every script; the keys that follow from it are in the same slot.

_OPEN = f"""{_CLEAR}
local live = redis.call('GET', KEYS[1] .. 'live')
if not live then
    live = '1'
    redis.call('SET', KEYS[1] .. 'live', live)
end
local vector = redis.call('GET', KEYS[1] .. live .. ':vector')
if not vector then
    clear(live)
    vector = '{{}}'
    redis.call('SET', KEYS[1] .. live .. ':vector', vector)
end
return {{live, vector, redis.call('GET', KEYS[1] .. live .. ':code') or ''}}
"""

# ARGV: generation, '1' if it is to be live, vector before, vector after, changes (MessagePack), code.
_APPLY = """#!lua
local own = KEYS[1] .. ARGV[1] .. ':'
if ARGV[2] == '1' and redis.call('GET', KEYS[1] .. 'live') ~= ARGV[1] then return 0 end
if redis.call('GET', own .. 'vector') ~= ARGV[3] then return 0 end
local function add(command, collections)
    for name, increments in pairs(collections) do
        local key = own .. name
        redis.call('SADD', own .. 'keys', key)
        for i = 1, #increments, 2 do
            if command == 'HINCRBY' then redis.call('HINCRBY', key, increments[i], increments[i + 1])
            else redis.call('ZINCRBY', key, increments[i + 1], increments[i]) end
        end
    end
end
local changes = cmsgpack.unpack(ARGV[5])
local ok, failure = pcall(function()
    add('HINCRBY', changes[1])
    add('ZINCRBY', changes[2])
end)
if not ok then
    redis.call('UNLINK', own .. 'vector')
    return redis.error_reply('ERR half-applied, begins again: ' .. (type(failure) == 'table' and failure.err or failure))
end
local now = redis.call('TIME')
redis.call('SET', own .. 'vector', ARGV[4])
redis.call('SET', own .. 'at', now[1] .. string.format('%06d', now[2]))
redis.call('SET', own .. 'code', ARGV[6])
if ARGV[2] == '1' then redis.call('PUBLISH', KEYS[1] .. 'changed', ARGV[4]) end
return 1
"""

_BEGIN = f"""{_CLEAR}
local next = string.format('%d', redis.call('GET', KEYS[1] .. 'live') + 1)
clear(next)
redis.call('SET', KEYS[1] .. next .. ':vector', '{{}}')
return next
"""

# ARGV: generation, its vector.
_SWITCH = f"""{_CLEAR}
local live = redis.call('GET', KEYS[1] .. 'live')
if redis.call('GET', KEYS[1] .. ARGV[1] .. ':vector') ~= ARGV[2] then return -1 end
if live then
    local draft = cjson.decode(ARGV[2])
    for log, place in pairs(cjson.decode(redis.call('GET', KEYS[1] .. live .. ':vector') or '{{}}')) do
        if not draft[log] or draft[log][1] < place[1] then return 0 end
    end
    clear(live)
end
redis.call('SET', KEYS[1] .. 'live', ARGV[1])
redis.call('PUBLISH', KEYS[1] .. 'changed', ARGV[2])
return 1
"""

# One script, so that everything is of one moment. Others wait meanwhile: a third of a second for 100,000 members. The answer
# is one MessagePack, which a client need not parse element by element.
_STATE = """#!lua flags=no-writes
local live = redis.call('GET', KEYS[1] .. 'live')
local own = KEYS[1] .. (live or '') .. ':'
local vector = live and redis.call('GET', own .. 'vector')
if not vector then return false end
local found = {}
for _, key in ipairs(redis.call('SMEMBERS', own .. 'keys')) do
    local kind = redis.call('TYPE', key).ok
    if kind == 'hash' then table.insert(found, {string.sub(key, #own + 1), redis.call('HGETALL', key)}) end
    if kind == 'zset' then table.insert(found, {string.sub(key, #own + 1), redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')}) end
end
return {live, vector, redis.call('GET', own .. 'code') or '', cmsgpack.pack(found)}
"""


_unpack = msgspec.msgpack.Decoder(list[tuple[str, list[str]]]).decode
_WHOLE = re.compile("-?[0-9]+")


class Increments(msgspec.Struct):
    """By the names of hashes and of sorted sets: what to add to which field or member."""

    hashes: dict[str, dict[str, int]] = {}
    scores: dict[str, dict[str, int]] = {}


class CacheProjection(Protocol):
    """A read model in hashes and sorted sets of its own."""

    name: str

    def changes(self, events: Events) -> Increments:
        """What the events add. Pure."""

    def table(self, name: str) -> Table:
        """The two columns of a hash or of a sorted set."""


def fold(tables: Tables, changes: Increments) -> None:
    """What _APPLY does, in memory."""
    for name, increments in (*changes.hashes.items(), *changes.scores.items()):
        rows = tables.setdefault(name, {})
        for key, amount in increments.items():
            _, before = rows.get(key) or (key, 0)
            rows[key] = (key, before + amount)


class RedisStore:
    """A projection with its keys (projections.projection.Store). `exclusive` is the right to rebuild, which Redis cannot give."""

    def __init__(
        self, projection: CacheProjection, client: Redis, exclusive: Callable[[str], AbstractAsyncContextManager[None]]
    ) -> None:
        self.name = projection.name
        self._projection = projection
        self._client: Any = client  # redis-py's types cannot tell its two clients apart
        self._prefix = prefix(projection.name)
        self._exclusive = exclusive
        self._open, self._apply, self._begin, self._switch = (
            self._client.register_script(script) for script in (_OPEN, _APPLY, _BEGIN, _SWITCH)
        )

    async def open(self) -> Standing:
        live, vector, code = await self._open(keys=[self._prefix])
        return Standing(int(live), live=True, vector=parse_vector(vector), code=text(code) or None)

    async def apply(self, standing: Standing, batch: Batch) -> Standing:
        moved = standing.moved(batch)
        arguments: list[int | bytes] = [
            standing.generation,
            int(standing.live),
            write_vector(standing.vector),
            write_vector(moved.vector),
            _packed(self._projection.changes(batch.events)),
            CODE.encode(),
        ]
        if not await self._apply(keys=[self._prefix], args=arguments):
            raise Moved(self.name)
        return moved

    def building(self) -> AbstractAsyncContextManager[None]:
        return self._exclusive(self.name)

    async def begin(self) -> Standing:
        await self.open()
        return Standing(int(await self._begin(keys=[self._prefix])), live=False, vector={})

    async def switch(self, draft: Standing) -> bool:
        switched = await self._switch(keys=[self._prefix], args=[draft.generation, write_vector(draft.vector)])
        if switched < 0:
            raise Moved(self.name)
        return bool(switched)

    def state(self) -> AbstractAsyncContextManager[Snapshot]:
        return state(self._client, self._projection)

    async def state_hash(self) -> StateHash:
        async with self.state() as found:
            return await found.hash()


@asynccontextmanager
async def state(client: Redis, projection: CacheProjection) -> AsyncIterator[Snapshot]:
    """What the live generation of a projection holds, as one script sees it. Also for readers."""
    evaluate: Any = client.eval
    answer = await evaluate(_STATE, 1, prefix(projection.name))
    live, vector, code, packed = answer or (0, b"{}", b"", msgspec.msgpack.encode([]))

    async def chunks() -> AsyncIterator[Chunk]:
        for name, flat in sorted(_unpack(packed)):
            yield projection.table(name), sorted(zip(flat[::2], map(_number, flat[1::2]), strict=True))

    yield Snapshot(Standing(int(live), live=True, vector=parse_vector(vector), code=text(code) or None), chunks())


def _number(stored: str) -> Value:
    """A whole number; anything else, which we never write, as the text that it is."""
    return int(stored) if _WHOLE.fullmatch(stored) else stored


def prefix(name: str) -> str:
    """What all keys of a projection begin with; its hash tag keeps them in one slot."""
    return f"countroom:{{{name}}}:"


def parse_vector(stored: bytes | str) -> Vector:
    return {
        log: Position(position, bytes.fromhex(leaf))
        for log, (position, leaf) in msgspec.json.decode(stored, type=dict[str, tuple[int, str]]).items()
    }


def write_vector(vector: Vector) -> bytes:
    """One text for one vector, since scripts compare texts."""
    return msgspec.json.encode({log: (vector[log].position, vector[log].leaf.hex()) for log in sorted(vector)})


def text(value: bytes | str) -> str:
    """Clients answer bytes or text, as they were made."""
    return value.decode() if isinstance(value, bytes) else value


def _packed(changes: Increments) -> bytes:
    """Increments as decimal digits: Lua's numbers are doubles."""
    return msgspec.msgpack.encode([_flat(changes.hashes), _flat(changes.scores)])


def _flat(collections: dict[str, dict[str, int]]) -> dict[str, list[str]]:
    return {
        name: [part for field, value in increments.items() for part in (field, str(value))]
        for name, increments in collections.items()
    }
