"""
Read models in Redis: one script applies a batch and moves the positions, if they stand where the caller read them.

Keys of a projection lie in one hash slot: countroom:{<name>}:live names the live generation g, and
countroom:{<name>}:<g>:vector says where it stands, :at when it was last moved, :keys which other keys are its data.

Invariants:
    - a batch is applied once, however often it is sent: the second time the vector has moved;
    - a flush takes the vector too, so it is noticed, and the projection begins again from zero by itself;
    - if a write fails half-way the vector goes, with the same effect;
    - all changes are increments: the result does not depend on the order of batches of different logs.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec
from redis.asyncio import Redis

from projections.projection import Batch, Events, Moved, Position, Standing, StateHash, Vector

_CLEAR = """#!lua
local function clear(generation)
    local keys = KEYS[1] .. generation .. ':keys'
    for _, key in ipairs(redis.call('SMEMBERS', keys)) do redis.call('UNLINK', key) end
    redis.call('UNLINK', keys, KEYS[1] .. generation .. ':vector', KEYS[1] .. generation .. ':at')
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
return {{live, vector}}
"""

# ARGV: generation, '1' if it is to be live, vector before, vector after, changes (MessagePack).
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

PAGE = 5_000


class Increments(msgspec.Struct):
    """By the names of hashes and of sorted sets: what to add to which field or member."""

    hashes: dict[str, dict[str, int]] = {}
    scores: dict[str, dict[str, int]] = {}


class CacheProjection(Protocol):
    """A read model in hashes and sorted sets of its own."""

    name: str

    def changes(self, events: Events) -> Increments:
        """What the events add. Pure."""


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
        live, vector = await self._open(keys=[self._prefix])
        return Standing(int(live), live=True, vector=parse_vector(vector))

    async def apply(self, standing: Standing, batch: Batch) -> Standing:
        moved = standing.moved(batch)
        arguments: list[int | bytes] = [
            standing.generation,
            int(standing.live),
            write_vector(standing.vector),
            write_vector(moved.vector),
            _packed(self._projection.changes(batch.events)),
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

    async def state_hash(self) -> StateHash:
        """Reads in pages, again from the beginning if something was applied meanwhile."""
        while True:
            standing = await self.open()
            digest = hashlib.sha256()
            async for line in self._lines(standing):
                digest.update(line)
            if await self.open() == standing:
                return StateHash(standing.vector, digest.hexdigest())

    async def _lines(self, standing: Standing) -> AsyncIterator[bytes]:
        """What the data keys hold, in the order of their names; fields sorted, members by their scores."""
        own = f"{self._prefix}{standing.generation}:"
        for key in sorted(text(key) for key in await self._client.smembers(own + "keys")):
            yield f"{key.removeprefix(own)}\n".encode()
            if text(await self._client.type(key)) == "hash":
                for field, value in sorted((await self._client.hgetall(key)).items()):
                    yield f"{text(field)}\t{text(value)}\n".encode()
                continue
            for first in range(0, await self._client.zcard(key), PAGE):
                for member, score in await self._client.zrange(key, first, first + PAGE - 1, withscores=True):
                    yield f"{text(member)}\t{int(score)}\n".encode()


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
