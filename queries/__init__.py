"""
The read side: what dashboards, support, CRM and regulators ask, one module per context.

Plain functions of a `Context`; app/ binds them to routes. What they return are the API's schemas.

Invariants:
    - nothing here decides or writes, and no command asks here;
    - what comes out of a cache says from which positions of the logs it was made, and when;
    - a personal field is shown in the clear only where the vault of this region opens it.
"""
