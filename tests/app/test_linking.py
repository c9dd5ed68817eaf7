"""How long the certificate of a region's links is still valid, as /metrics tells it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app import linking
from devstack import Region, certificates

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def test_it_is_read_beside_the_keys(tmp_path: Path) -> None:
    files = certificates.link(Region(name="eu", index=0, data=tmp_path, port_base=8100), at=NOW)
    left = linking.left_s(files.certificate.parent, NOW)
    assert left == certificates.VALID_FOR.total_seconds()
    assert linking.left_s(files.certificate.parent, NOW + timedelta(days=91)) == -86_400


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_where_it_is_not_or_is_none_nothing_is_told(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / linking.CERTIFICATE).write_bytes(content)
    assert linking.left_s(tmp_path, NOW) is None
