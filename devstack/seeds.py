"""The keys (nkeys, Ed25519) of a region's users at NATS, each in <data>/<region>/nats/<user>.seed, mode 0600."""

import secrets
from pathlib import Path

from devstack.files import private_folder, write_private
from devstack.region import Region


def folder(region: Region) -> Path:
    return private_folder(region.folder / "nats")


def seed(region: Region, user: str) -> str:
    """The seed of one of the region's users, made up at the first call."""
    import nkeys

    path = folder(region) / f"{user}.seed"
    if not path.exists():
        write_private(path, nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER).decode())
    return path.read_text()


def public_key(region: Region, user: str) -> str:
    import nkeys

    key: bytes = nkeys.from_seed(bytearray(seed(region, user).encode())).public_key
    return key.decode()
