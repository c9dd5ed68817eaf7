"""Registrations whose players are a certain region's own: the partition follows from the key (commands.identity)."""

from __future__ import annotations

import uuid
from collections.abc import Container

from commands.identity import command_id, partition_for
from policies.residency import PARTITIONS


def key_within(share: Container[int], actor: str = "operator:dev") -> str:
    """A new key under which this actor's new player is in `share`, where residency says nothing of them."""
    while True:
        key = uuid.uuid4().hex
        if partition_for(command_id(actor, key), PARTITIONS) in share:
            return key
