"""`python -m app` is `countroom`."""

from app.cli import main

main()
