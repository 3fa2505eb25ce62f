"""May this caller do this for this tenant? One row for each answer."""

import pytest

from payments_ledger.auth.policy import ROLE_PERMISSIONS, Permission, require_permission
from payments_ledger.auth.tokens import Identity
from payments_ledger.errors import Forbidden, PermissionDenied, WrongTenant


def identity(tenant_id: str, role: str) -> Identity:
    return Identity("s", tenant_id, (role,), frozenset(ROLE_PERMISSIONS[role]), "pro", "region-a")


@pytest.mark.parametrize(
    ("home", "role", "permission", "tenant_id", "refusal"),
    [
        ("a", "ops", Permission.PAYMENTS_WRITE, "a", None),
        ("a", "ops", Permission.PAYMENTS_READ, "a", None),
        ("a", "ops", Permission.LEDGER_READ, "a", None),
        ("a", "ops", Permission.ADMIN, "a", PermissionDenied),
        ("a", "sales", Permission.PAYMENTS_READ, "a", None),
        ("a", "sales", Permission.PAYMENTS_WRITE, "a", PermissionDenied),
        ("a", "sales", Permission.LEDGER_READ, "a", PermissionDenied),
        ("a", "ops", Permission.PAYMENTS_READ, "b", WrongTenant),
        ("a", "ops", Permission.PAYMENTS_READ, "*", WrongTenant),
        ("*", "admin", Permission.ADMIN, "a", None),
        ("*", "admin", Permission.PAYMENTS_WRITE, "b", None),
        ("*", "admin", Permission.PAYMENTS_WRITE, "*", WrongTenant),
    ],
)
def test_who_may_do_what_for_whom(
    home: str, role: str, permission: Permission, tenant_id: str, refusal: type[Forbidden] | None
) -> None:
    if refusal is None:
        require_permission(identity(home, role), permission, tenant_id)
    else:
        with pytest.raises(refusal):
            require_permission(identity(home, role), permission, tenant_id)
