"""Asking a region's API from the command line: small, synchronous, standard library only, so that commands start at once."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any


class NoAnswer(Exception):
    """A region could not be asked."""


def get(url: str, token: str, *, timeout_s: float = 10.0) -> Any:
    """The JSON at `url`. Raises NoAnswer."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 — the user's own URL
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise NoAnswer(f"{url} answered {error.code}: {error.read(500).decode(errors='replace')}") from error
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise NoAnswer(f"{url} does not answer: {error}") from error
