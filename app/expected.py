"""Which errors a user of the command line can understand and mend; all others are faults of ours, shown with their trace."""

from __future__ import annotations

import sys


def expected_errors() -> tuple[type[Exception], ...]:
    """Looked up when an error is there: modules that were never loaded have raised nothing."""
    found: list[type[Exception]] = []
    for module, names in (
        ("app.local", ("LogClosed", "NoDevstack", "NothingRuns")),
        ("app.sending", ("ImportStopped",)),
        ("app.calling", ("NoAnswer",)),
        ("app.reconciling", ("NotReconciled",)),
        ("app.demo", ("DemoFailed",)),
        ("providers.known", ("ProvidersUnreadable",)),
        ("access.identity_providers", ("IdentityProvidersError",)),
        ("access.common_passwords", ("PasswordFilesError",)),
        ("registers.known", ("RegistersUnreadable",)),
        ("policies.residency", ("ResidencyUnreadable",)),
        ("psycopg", ("OperationalError",)),
        ("devstack.errors", ("DevstackError",)),
        ("projections.rebuild", ("RebuildStopped",)),
        ("projections.projection", ("RebuildRunning",)),
        ("eventstore.schema", ("SchemaChanged",)),
    ):
        loaded = sys.modules.get(module)
        found += [getattr(loaded, name) for name in names if hasattr(loaded, name)]
    return tuple(found)
