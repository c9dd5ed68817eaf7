"""
Checks of "is it ready yet?", for `Stack.start_process` and for the servers.

A check is called again and again until it answers true; OSError means "not yet". It must answer within a second or so.
"""

import urllib.error
import urllib.request
from collections.abc import Callable

Check = Callable[[], bool]

_SUCCESS = range(200, 300)


def http_ok(url: str) -> Check:
    """True once a GET of url answers 2xx. Meant for /readyz."""

    def check() -> bool:
        try:
            with _direct.open(url, timeout=1.0) as answer:
                status: int = answer.status
        except urllib.error.HTTPError:  # it is an OSError, too, but an answered one: not ready, and close its socket
            return False
        return status in _SUCCESS

    return check


# An HTTP proxy in the environment must never see requests to our own loopback.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
