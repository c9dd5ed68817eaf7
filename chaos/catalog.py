"""All faults by name, and what of the regions each needs for itself: two that need the same come one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chaos import faults, frames, links, releases
from chaos.faults import Fault
from chaos.schedule import KILLS, UPGRADE, Step

BETWEEN = "between"  # all links
_OF_LINKS = frozenset(links.faults())
_OF_ALL = frozenset(
    {"cold-start", UPGRADE, *frames.faults()}
)  # messages pass only where both ends and their servers run


def known() -> Mapping[str, Fault]:
    return faults.faults() | links.faults() | frames.faults() | releases.faults()


def others() -> list[str]:
    """Without kills."""
    return sorted(set(known()) - set(KILLS))


def needs(step: Step, regions: Sequence[str]) -> frozenset[str]:
    """Regions, or what is between them."""
    if step.fault in _OF_LINKS:
        return frozenset({BETWEEN})
    if step.fault in _OF_ALL:
        return frozenset({BETWEEN, *regions})
    return frozenset({step.region})
