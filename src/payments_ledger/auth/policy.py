"""May this caller do this for this tenant? Pure decisions, by role."""

from enum import StrEnum

from payments_ledger.auth.tokens import EVERY_TENANT, Identity
from payments_ledger.errors import PermissionDenied, WrongTenant


class Permission(StrEnum):
    PAYMENTS_WRITE = "payments:write"
    PAYMENTS_READ = "payments:read"
    LEDGER_READ = "ledger:read"
    ADMIN = "admin"


ROLE_PERMISSIONS: dict[str, frozenset[Permission]] = {
    "admin": frozenset(Permission),
    "ops": frozenset({Permission.PAYMENTS_WRITE, Permission.PAYMENTS_READ, Permission.LEDGER_READ}),
    "sales": frozenset({Permission.PAYMENTS_READ}),
}
"""The roles that every tenant begins with."""


def require_permission(identity: Identity, permission: Permission, tenant_id: str) -> None:
    """Raises WrongTenant or PermissionDenied unless the identity may do this for the tenant."""
    if identity.tenant_id not in (tenant_id, EVERY_TENANT) or tenant_id == EVERY_TENANT:
        raise WrongTenant
    if permission not in identity.permissions:
        raise PermissionDenied(f"This needs the permission {permission}.")
