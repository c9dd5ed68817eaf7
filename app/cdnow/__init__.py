"""
The CDNOW purchase history becomes players and settled deposits, through the public REST API.

The data are real: what the customers who first bought at the CD shop CDNOW in the first quarter of 1997 bought there until
June 1998, "master" all of them, "sample" every tenth (P. S. Fader, B. G. S. Hardie, "Forecasting Repeat Sales at CDNOW",
Interfaces 31(3), 2001; free for research).

    published   where the files are
    history     what a file says
    batches     what is sent of it
    run         the import itself
    stopped     why one ends before its end

The ledger itself is the cursor. A command's key is made of the file's digest and the line's number, so sending a file
again records nothing twice, and an import that was stopped goes on by being run again.

Invariants:
    - dollars become cents exactly, or the file is refused;
    - two identical lines are two purchases; a line of 0.00 is none, but its customer is registered;
    - nothing is sent before the whole file has been read without a fault.
"""

from __future__ import annotations

from app.cdnow.published import locate
from app.cdnow.run import Imported, import_cdnow

__all__ = ["Imported", "import_cdnow", "locate"]
