"""
The right that each command needs, by its path. A plan says so again (Plan.require); this table is for whoever has no plan at hand:
the interface's description, and the test that no command is without a right.

Invariant: no command is described whose plan asks for nothing, or for a right that does not stand here (`require_named`).
"""

from __future__ import annotations

from collections.abc import Mapping

from access.policy import Action
from commands.plan import Plan

RIGHTS: Mapping[str, tuple[Action, ...]] = {
    "/v1/players": (
        Action.PLAYER_REGISTER,
        Action.HISTORY_IMPORT,
    ),
    "/v1/players/{player_id}/profile": (Action.PLAYER_MANAGE,),
    "/v1/players/{player_id}/consents": (Action.CONSENT_SET,),
    "/v1/players/{player_id}/consents/withdraw": (Action.CONSENT_SET,),
    "/v1/players/{player_id}/activate": (Action.PLAYER_MANAGE,),
    "/v1/players/{player_id}/block": (Action.PLAYER_BLOCK,),
    "/v1/players/{player_id}/unblock": (Action.PLAYER_BLOCK,),
    "/v1/players/{player_id}/dormant": (Action.PLAYER_MANAGE,),
    "/v1/players/{player_id}/close": (Action.PLAYER_MANAGE,),
    "/v1/players/{player_id}/tags": (
        Action.PLAYER_MANAGE,
        Action.PLAYER_FLAG,
    ),
    "/v1/players/{player_id}/tags/remove": (
        Action.PLAYER_MANAGE,
        Action.PLAYER_FLAG,
    ),
    "/v1/players/{player_id}/notes": (Action.PLAYER_MANAGE,),
    "/v1/players/{player_id}/kyc/request": (Action.KYC_REQUEST,),
    "/v1/players/{player_id}/kyc/submit": (Action.KYC_REQUEST,),
    "/v1/players/{player_id}/kyc/approve": (Action.KYC_DECIDE,),
    "/v1/players/{player_id}/kyc/reject": (Action.KYC_DECIDE,),
    "/v1/players/{player_id}/kyc/expire": (Action.TIMER_FIRE,),
    "/v1/players/{player_id}/kyc/miss": (Action.TIMER_FIRE,),
    "/v1/players/{player_id}/logins": (Action.LOGIN_RECORD,),
    "/v1/players/{player_id}/logins/fail": (Action.LOGIN_RECORD,),
    "/v1/players/{player_id}/logins/end": (Action.LOGIN_RECORD,),
    "/v1/players/{player_id}/limits/deposit": (Action.LIMIT_SET,),
    "/v1/players/{player_id}/limits": (Action.LIMIT_SET,),
    "/v1/players/{player_id}/limits/confirm": (Action.LIMIT_SET,),
    "/v1/players/{player_id}/limits/withdraw": (Action.LIMIT_SET,),
    "/v1/players/{player_id}/limits/attest": (Action.LIMIT_OPERATE,),
    "/v1/players/{player_id}/limits/operator": (Action.LIMIT_OPERATE,),
    "/v1/players/{player_id}/deposits": (
        Action.DEPOSIT_REQUEST,
        Action.HISTORY_IMPORT,
    ),
    "/v1/players/{player_id}/withdrawals": (Action.WITHDRAWAL_REQUEST,),
    "/v1/transactions/{transaction_id}/authorise": (Action.DEPOSIT_AUTHORISE,),
    "/v1/transactions/{transaction_id}/settle": (
        Action.DEPOSIT_SETTLE,
        Action.WITHDRAWAL_SETTLE,
    ),
    "/v1/transactions/{transaction_id}/fail": (Action.DEPOSIT_FAIL,),
    "/v1/transactions/{transaction_id}/expire": (Action.TIMER_FIRE,),
    "/v1/transactions/{transaction_id}/dispute": (Action.DEPOSIT_DISPUTE,),
    "/v1/transactions/{transaction_id}/dispute/win": (Action.DEPOSIT_DISPUTE,),
    "/v1/transactions/{transaction_id}/dispute/lose": (Action.DEPOSIT_DISPUTE,),
    "/v1/transactions/{transaction_id}/refund": (Action.DEPOSIT_REFUND,),
    "/v1/transactions/{transaction_id}/approve": (Action.WITHDRAWAL_REVIEW,),
    "/v1/transactions/{transaction_id}/reject": (Action.WITHDRAWAL_REVIEW,),
    "/v1/transactions/{transaction_id}/cancel": (Action.WITHDRAWAL_CANCEL,),
    "/v1/transactions/{transaction_id}/send": (Action.WITHDRAWAL_SEND,),
    "/v1/transactions/{transaction_id}/return": (Action.WITHDRAWAL_SETTLE,),
    "/v1/players/{player_id}/adjustments": (Action.MONEY_ADJUST,),
    "/v1/players/{player_id}/sessions": (Action.SESSION_LAUNCH,),
    "/v1/players/{player_id}/sessions/end": (Action.SESSION_LAUNCH,),
    "/v1/players/{player_id}/sessions/checked": (Action.SESSION_LAUNCH,),
    "/v1/players/{player_id}/sessions/check-every": (Action.SESSION_LAUNCH,),
    "/v1/players/{player_id}/sessions/expire": (Action.TIMER_FIRE,),
    "/v1/players/{player_id}/rounds/void": (Action.ROUND_VOID,),
    "/v1/players/{player_id}/tickets": (Action.TICKET_OPEN,),
    "/v1/tickets/{ticket_id}/assign": (Action.TICKET_WORK,),
    "/v1/tickets/{ticket_id}/answer": (Action.TICKET_WORK,),
    "/v1/tickets/{ticket_id}/note": (Action.TICKET_WORK,),
    "/v1/tickets/{ticket_id}/escalate": (Action.TICKET_WORK,),
    "/v1/tickets/{ticket_id}/close": (Action.TICKET_WORK,),
    "/v1/tickets/{ticket_id}/reopen": (Action.TICKET_WORK,),
    "/v1/tickets/{ticket_id}/miss": (Action.TIMER_FIRE,),
    "/v1/players/{player_id}/time-out": (Action.PROTECTION_SET,),
    "/v1/players/{player_id}/panic": (Action.PROTECTION_SET,),
    "/v1/players/{player_id}/exclude": (Action.PROTECTION_SET,),
    "/v1/players/{player_id}/exclusion/lift": (Action.PROTECTION_LIFT,),
    "/v1/players/{player_id}/exclusion/dismiss-match": (Action.PROTECTION_LIFT,),
    "/v1/players/{player_id}/exclusion/end": (Action.TIMER_FIRE,),
    "/v1/players/{player_id}/blocks": (Action.PROTECTION_SET,),
    "/v1/players/{player_id}/unblocks": (Action.PROTECTION_LIFT,),
    "/v1/players/{player_id}/register-check": (Action.PROTECTION_SET,),
    "/v1/notices/{notice_id}/acknowledge": (Action.NOTICE_WORK,),
    "/v1/notices/{notice_id}/assign": (Action.NOTICE_WORK,),
    "/v1/notices/{notice_id}/link": (Action.NOTICE_WORK,),
    "/v1/notices/{notice_id}/close": (Action.NOTICE_WORK,),
    "/v1/suppressions": (Action.NOTICE_SUPPRESS,),
    "/v1/players/{player_id}/contacts": (Action.CONTACT_WORK,),
    "/v1/contacts/{contact_id}/attempt": (Action.CONTACT_WORK,),
    "/v1/contacts/{contact_id}/make": (Action.CONTACT_WORK,),
    "/v1/contacts/{contact_id}/follow-up": (Action.CONTACT_WORK,),
    "/v1/disclosures": (Action.KEYS_DISCLOSE,),
    "/v1/players/{player_id}/erase": (Action.PLAYER_ERASE,),
    "/v1/operators": (Action.OPERATOR_INVITE,),
    "/v1/operators/{operator_id}/invite-again": (Action.OPERATOR_INVITE,),
    "/v1/operators/{operator_id}/confirm": (Action.OPERATOR_INVITE,),
    "/v1/operators/{operator_id}/unlink-identity": (Action.OPERATOR_MANAGE,),
    "/v1/operators/{operator_id}/roles": (Action.ROLE_GRANT,),
    "/v1/operators/{operator_id}/revoke-role": (Action.ROLE_GRANT,),
    "/v1/operators/{operator_id}/scope": (Action.OPERATOR_MANAGE,),
    "/v1/operators/{operator_id}/suspend": (Action.OPERATOR_MANAGE,),
    "/v1/operators/{operator_id}/resume": (Action.OPERATOR_MANAGE,),
    "/v1/operators/{operator_id}/person": (Action.OPERATOR_MANAGE,),
    "/v1/tokens": (Action.TOKEN_ISSUE,),
    "/v1/tokens/{token_id}/confirm": (Action.TOKEN_ISSUE,),
    "/v1/tokens/{token_id}/revoke": (Action.TOKEN_REVOKE,),
    "/v1/compartments": (Action.COMPARTMENT_MANAGE,),
    "/v1/compartments/{compartment}/members": (Action.COMPARTMENT_MANAGE,),
    "/v1/compartments/{compartment}/confirm": (Action.COMPARTMENT_MANAGE,),
    "/v1/compartments/{compartment}/remove": (Action.COMPARTMENT_MANAGE,),
    "/v1/policies": (Action.POLICY_ADOPT,),
    "/v1/policies/{policies_hash}/adopt": (Action.POLICY_ADOPT,),
    "/v1/handovers": (Action.REGION_HANDOVER,),
    "/v1/approvals/{approval_id}/approve": (Action.APPROVAL_DECIDE,),
    "/v1/approvals/{approval_id}/reject": (Action.APPROVAL_DECIDE,),
    "/v1/approvals/{approval_id}/expire": (Action.TIMER_FIRE,),
}
"""Where several stand, what is asked for says which of them are needed."""


class Unguarded(Exception):
    """A command asks for no right, or for another than it is known by: a fault of ours."""


def require_named(path: str, plan: Plan) -> Plan:
    """The plan of a command of this path. Raises Unguarded."""
    if not plan.require or not set(plan.require) <= set(RIGHTS.get(path, ())):
        raise Unguarded(f"{path} asks for {[str(action) for action in plan.require]}")
    return plan
