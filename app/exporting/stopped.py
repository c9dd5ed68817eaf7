"""Why an export is not made."""

from __future__ import annotations


class ExportStopped(Exception):
    """The caller can mend it, or it can be tried again; what was written so far is kept."""


class NotIntact(Exception):
    """What is to be exported does not lead to the root that was signed: nothing of it is handed on."""
