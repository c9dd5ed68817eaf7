"""Settings of the property tests."""

from hypothesis import HealthCheck, settings

# The first text that hypothesis draws on a machine takes seconds, for it then tabulates Unicode; and machines are shared.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
