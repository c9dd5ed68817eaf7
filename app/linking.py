"""The certificate that a region shows on its links, as far as it lies beside the keys that its processes have."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

CERTIFICATE = "link.pem"


def left_s(seeds: Path, at: datetime) -> float | None:
    """For how many seconds the certificate in the folder is still valid, negative once it is not; None where there is none to be read."""
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate((seeds / CERTIFICATE).read_bytes())
    except (OSError, ValueError):
        return None
    return (certificate.not_valid_after_utc - at).total_seconds()
