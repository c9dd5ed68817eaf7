"""
A region that asks a register over HTTP, and a reactor that is killed with -9 while it shuts a person's other accounts out.

The register runs in this process. What shall not be appended yet is held up by the lock of the log (tests/system/test_payouts.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.registers.register import open_register
from tests.system.conftest import Client, running
from tests.system.test_payouts import kill_once_it_waits, log_held, until

ADA = {"country": "NL", "name": "Ada Lovelace", "birth_date": "1990-12-10", "email": "ada@example.org"}
BOB = {"country": "NL", "name": "Bob Hope", "birth_date": "1980-01-01", "email": "bob@example.org"}


def closed(client: Client, player: str) -> dict[str, str]:
    found: dict[str, str] = client.get(f"/v1/players/{player}/protection").json["closed"]
    return found


def log_in(client: Client, player: str, session: str) -> tuple[int, str]:
    answer = client.post(f"/v1/players/{player}/logins", {"session": session})
    return (answer.status, answer.json.get("code", ""))


@pytest.mark.fault
@pytest.mark.timeout(240)
def test_a_register_is_asked_over_http_and_a_reactor_killed_in_between_shuts_every_account_out(tmp_path: Path) -> None:
    with open_register("CRUKS") as register:
        register.write_file(tmp_path)
        with running(tmp_path, ["eu"]) as deployment:
            eu, stack = deployment.clients["eu"], deployment.local.stack

            # a registration and a log-in ask; who is in the register gets no account and is not let in
            bob = eu.register(**BOB)
            assert [each["name"] for each in register.asked] == ["Bob Hope"]
            assert log_in(eu, bob, "1") == (201, "")
            register.excluded["Bob Hope", "1980-01-01"] = None
            assert log_in(eu, bob, "2") == (409, "excluded")
            assert set(closed(eu, bob)) == {"deposit", "free_play", "bet", "bonus", "login"}
            refused = eu.post("/v1/players", {**BOB, "currency": "EUR"})
            assert (refused.status, refused.json["code"]) == (409, "excluded")
            item = {"key": "b", "path": "/v1/players", "body": {**BOB, "currency": "EUR"}}
            (in_batch,) = eu.post("/v1/batch", {"items": [item]}, key=None).json["items"]
            assert (in_batch["status"], in_batch["body"]["code"]) == (409, "excluded")
            asked = len(register.asked)
            assert eu.post("/v1/players", {**BOB, "currency": "EUR"}, role="viewer").status == 403
            assert len(register.asked) == asked  # whoever may not register learns nothing from the register

            # a register that is down keeps out, and lets in once it answers
            carol = eu.register(country="NL", name="Carol", birth_date="1970-01-01")
            register.down = True
            dan = eu.register(country="NL", name="Dan", birth_date="1970-01-02")
            assert log_in(eu, dan, "1") == (409, "register_unanswered")
            register.down = False
            assert log_in(eu, dan, "2") == (201, "")
            register.down = True
            assert log_in(eu, carol, "1") == (201, "")  # it has said «clear» of her today
            register.down = False

            # killed before its append, the reactor that comes after it shuts the other accounts out
            ada = [eu.register(**ADA), *(eu.register(**{**ADA, "country": "AT", "brand": brand}) for brand in "bc")]
            assert eu.post(f"/v1/players/{ada[0]}/exclude", {"term": "6_months"}).status == 200
            with log_held(deployment) as connection:
                kill_once_it_waits(deployment, connection)
            stack.wait_restarted("eu", "reactor", timeout_s=60)
            until(lambda: all("bet" in closed(eu, player) for player in ada))
            until(lambda: deployment.types("eu")["protection.matches_shut_out"] >= 2)  # of Bob, too
            assert deployment.types("eu")["protection.excluded"] == 1 + len(ada)

            stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*.log"))
            for secret in (b"Ada Lovelace", b"ada@example.org", b"Bob Hope", register.secret.hex().encode()):
                assert secret not in stored
