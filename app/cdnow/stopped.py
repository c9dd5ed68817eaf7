"""
Why an import ends before its end.

    ImportStopped (app.sending)
    ├── DownloadFailed     the published files cannot be had
    ├── MalformedLine      the file is not of this format (line, reason)
    ├── ItemRefused        a command was refused (line, code)
    ├── RequestRefused     (app.sending) the service refuses the import as a whole
    └── Unreachable        (app.sending) the service has not answered for a minute
"""

from __future__ import annotations

from app.sending import ImportStopped


class DownloadFailed(ImportStopped):
    pass


class MalformedLine(ImportStopped):
    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line


class ItemRefused(ImportStopped):
    def __init__(self, line: int, title: str, code: str) -> None:
        super().__init__(f"line {line} was refused: {title} [{code}]. What stands before it is recorded and stays")
        self.line = line
        self.code = code
