"""What is sent of a history: each customer's registration, and their deposits behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from app.cdnow.history import Customer, History, Purchase

BATCH_ITEMS = 750
CUSTOMER_ITEMS_MAX = 500


class Item(NamedTuple):
    """A command of a batch: a player's registration (`cents` 0) or a deposit. `counted` only where it is sent for the first time."""

    line: int
    cents: int
    counted: bool


class Batch(NamedTuple):
    items: list[Item]
    body: bytes


def batches(history: History, size: int = BATCH_ITEMS) -> Iterator[Batch]:
    """
    Whole customers, as many as fit into `size` items.

    A customer of very many purchases fills several batches, each of which begins with the same registration.
    """
    items: list[Item] = []
    texts: list[str] = []
    for customer in history.customers:
        for first in range(0, len(customer.purchases) or 1, CUSTOMER_ITEMS_MAX):
            purchases = customer.purchases[first : first + CUSTOMER_ITEMS_MAX]
            if items and len(items) + 1 + len(purchases) > size:
                yield _batch(items, texts)
                items, texts = [], []
            place = len(items)
            items.append(Item(customer.line, 0, counted=not first))
            texts.append(_registration(history.digest, customer))
            for purchase in purchases:
                items.append(Item(purchase.line, purchase.cents, counted=True))
                texts.append(_deposit(history.digest, purchase, place))
    if items:
        yield _batch(items, texts)


def _batch(items: list[Item], texts: list[str]) -> Batch:
    return Batch(items, f'{{"items":[{",".join(texts)}]}}'.encode())


# JSON by hand costs a third of an encoder with its dictionaries, and is safe here: digits and dates need no escapes. The
# texts are for ever: a key that is sent with another body is refused.


def _registration(digest: str, customer: Customer) -> str:
    return (
        f'{{"key":"{digest}:player:{customer.id}","path":"/v1/players","body":{{"country":"US","currency":"USD",'
        f'"brand":"cdnow","external_id":"cdnow:{customer.id}","occurred":"{customer.since}"}}}}'
    )


def _deposit(digest: str, purchase: Purchase, player: int) -> str:
    return (
        f'{{"key":"{digest}:{purchase.line}","path":"/v1/players/${player}/deposits","body":{{"amount":{{"amount":'
        f'{purchase.cents},"currency":"USD"}},"provider":"cdnow","reference":"line {purchase.line}",'
        f'"occurred":"{purchase.day}"}}}}'
    )
