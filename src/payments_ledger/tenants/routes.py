"""The HTTP routes of administration, all under /v1/admin and for the tenant named in X-Tenant-Id."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import StringConstraints

from payments_ledger.access.caller import TENANT_PROBLEMS, Caller, caller_with
from payments_ledger.access.pages import page_of
from payments_ledger.access.policy import Permission
from payments_ledger.access.queries import list_policies
from payments_ledger.access.resources import Resources, Shared
from payments_ledger.access.tokens import EVERY_TENANT
from payments_ledger.chaos.faults import Faults
from payments_ledger.commit.audit import AuditRecord, change, defer_audit
from payments_ledger.commit.group_commit import UseCase
from payments_ledger.errors import PermissionDenied, Rejected, UnknownTenant
from payments_ledger.ledger.schemas import RequestedPeriod
from payments_ledger.tenants import queries
from payments_ledger.tenants.administration import Administrator, Change, lock_tenants, require_right
from payments_ledger.tenants.queries import AuditFilter
from payments_ledger.tenants.schemas import (
    NAME,
    AuditDocument,
    ChaosSettings,
    PolicyDocument,
    PolicyTerms,
    Roles,
    TenantDocument,
    UserDocument,
    read_policy,
    show_policy,
)
from payments_ledger.tenants.use_cases import (
    AssignRoles,
    DeletePolicy,
    PutPolicy,
    SetTenantSuspended,
    SetUserDisabled,
    assign_roles,
    delete_policy,
    put_policy,
    set_tenant_suspended,
    set_user_disabled,
)
from payments_ledger.validation.texts import WITHOUT_CONTROLS
from payments_ledger.web.paging import Page, json_array
from payments_ledger.web.parameters import CanonicalUUID, canonical
from payments_ledger.web.problems import BODY_PROBLEMS, documented
from payments_ledger.web.routes import Route

router = APIRouter(prefix="/v1/admin", tags=["administration"], route_class=Route)

Admin = Annotated[Caller, Depends(caller_with(Permission.ADMIN))]
# Not bound by a policy that cannot be decided on this machine: it must be possible to remove that one.
PolicyMender = Annotated[Caller, Depends(caller_with(Permission.ADMIN, mends_policies=True))]
PolicyName = Annotated[str, NAME, Path(description="The policy's name", examples=["ops-limit"])]
UserId = Annotated[CanonicalUUID, Path(description="The user", examples=["01a20568-0001-7000-8000-000000000001"])]
Wanted = Annotated[str, StringConstraints(min_length=1, max_length=256), WITHOUT_CONTROLS] | None

READ_PROBLEMS = documented(*TENANT_PROBLEMS)
CHANGE_PROBLEMS = documented(*TENANT_PROBLEMS, HTTPStatus.CONFLICT)
PUT_PROBLEMS = CHANGE_PROBLEMS | documented(*BODY_PROBLEMS)


# ----------------------------------------------------------------------------------------------------------------------
# Policies


@router.get("/policies", summary="List the policies", response_model=list[PolicyDocument], responses=READ_PROBLEMS)
async def list_tenant_policies(caller: PolicyMender, resources: Shared) -> Response:
    """The tenant's policies, in the order of their names."""
    async with resources.database.transaction([caller.tenant_id]) as conn:
        policies = await list_policies(conn, [caller.tenant_id])
    return await json_array(map(show_policy, policies.get(caller.tenant_id, ())))


@router.put("/policies/{name}", summary="Put a policy", responses=PUT_PROBLEMS)
async def put_tenant_policy(caller: Admin, name: PolicyName, body: PolicyTerms, resources: Shared) -> PolicyDocument:
    """Adds the policy or replaces the one of this name. It holds in every process within two seconds."""
    command = PutPolicy(caller.tenant_id, read_policy(name, body), _administrator(caller))
    return show_policy(await _submit(resources, put_policy, command))


@router.delete(
    "/policies/{name}", summary="Delete a policy", status_code=HTTPStatus.NO_CONTENT, responses=CHANGE_PROBLEMS
)
async def delete_tenant_policy(caller: PolicyMender, name: PolicyName, resources: Shared) -> None:
    """Removes the policy. A tenant without any is one in which nobody may do anything."""
    administrator = _administrator(caller, mends_policies=True)
    await _submit(resources, delete_policy, DeletePolicy(caller.tenant_id, name, administrator))


# ----------------------------------------------------------------------------------------------------------------------
# Users


@router.get("/users", summary="List the users", response_model=list[UserDocument], responses=READ_PROBLEMS)
async def list_tenant_users(
    caller: Admin, page: Annotated[Page, Depends(page_of("users"))], resources: Shared
) -> Response:
    """The tenant's users, the first made first; the next page is in `Link: <…>; rel="next"`."""
    async with resources.database.transaction([caller.tenant_id]) as conn:
        users = await queries.list_users(conn, caller.tenant_id, after=page.after, limit=page.rows_wanted)
    return await page.response(users, _user, lambda user: (user.created_at, user.id))


@router.post("/users/{user_id}/disable", summary="Disable a user", responses=CHANGE_PROBLEMS)
async def disable_user(caller: Admin, user_id: UserId, resources: Shared) -> UserDocument:
    """Disables the user. Tokens that they hold stop working within two seconds."""
    command = SetUserDisabled(caller.tenant_id, user_id, True, _administrator(caller))
    return _user(await _submit(resources, set_user_disabled, command))


@router.post("/users/{user_id}/enable", summary="Enable a user", responses=CHANGE_PROBLEMS)
async def enable_user(caller: Admin, user_id: UserId, resources: Shared) -> UserDocument:
    """Enables the user again."""
    command = SetUserDisabled(caller.tenant_id, user_id, False, _administrator(caller))
    return _user(await _submit(resources, set_user_disabled, command))


@router.put("/users/{user_id}/roles", summary="Give a user roles", responses=PUT_PROBLEMS)
async def put_user_roles(caller: Admin, user_id: UserId, body: Roles, resources: Shared) -> UserDocument:
    """Gives the user exactly these roles. They count within two seconds, whatever the user's tokens say."""
    command = AssignRoles(caller.tenant_id, user_id, frozenset(body.roles), _administrator(caller))
    return _user(await _submit(resources, assign_roles, command))


# ----------------------------------------------------------------------------------------------------------------------
# The tenant


@router.get("/tenant", summary="Show the tenant", responses=READ_PROBLEMS)
async def get_tenant(caller: Admin, resources: Shared) -> TenantDocument:
    """The tenant, and since when it is suspended, if it is."""
    async with resources.database.transaction([caller.tenant_id]) as conn:
        tenant = await queries.find_tenant(conn, caller.tenant_id)
    if tenant is None:
        raise UnknownTenant
    return _tenant(tenant)


@router.post("/tenant/suspend", summary="Suspend the tenant", responses=CHANGE_PROBLEMS)
async def suspend_tenant(caller: Admin, resources: Shared) -> TenantDocument:
    """Locks all users of the tenant out within two seconds. Payments that were confirmed still settle.

    Only global administrators may.
    """
    command = SetTenantSuspended(caller.tenant_id, True, _global_administrator(caller))
    return _tenant(await _submit(resources, set_tenant_suspended, command))


@router.post("/tenant/resume", summary="Resume the tenant", responses=CHANGE_PROBLEMS)
async def resume_tenant(caller: Admin, resources: Shared) -> TenantDocument:
    """Ends a suspension; only global administrators may."""
    command = SetTenantSuspended(caller.tenant_id, False, _global_administrator(caller))
    return _tenant(await _submit(resources, set_tenant_suspended, command))


# ----------------------------------------------------------------------------------------------------------------------
# The audit log


def _audit_filter(
    period: RequestedPeriod,
    principal: Annotated[Wanted, Query(description="Who did it: a user's id, or a part of the engine")] = None,
    action: Annotated[Wanted, Query(description="What was done, such as payment.create")] = None,
    target: Annotated[Wanted, Query(description="What it was done to, such as a payment's id")] = None,
) -> AuditFilter:
    return AuditFilter(period, principal and canonical(principal), action, target)


@router.get("/audit", summary="List the audit log", response_model=list[AuditDocument], responses=READ_PROBLEMS)
async def list_audit(
    caller: Admin,
    wanted: Annotated[AuditFilter, Depends(_audit_filter)],
    page: Annotated[Page, Depends(page_of("audit"))],
    resources: Shared,
) -> Response:
    """Changes and refusals, newest first; the next page is in `Link: <…>; rel="next"`."""
    async with resources.database.transaction([caller.tenant_id]) as conn:
        entries = await queries.list_audit_entries(
            conn, caller.tenant_id, wanted, after=page.after, limit=page.rows_wanted
        )
    return await page.response(entries, _audit_document, lambda entry: (entry.at, entry.id))


# ----------------------------------------------------------------------------------------------------------------------
# Chaos


@router.get("/chaos", summary="Show the injected faults", responses=READ_PROBLEMS)
async def get_chaos(caller: Admin, resources: Shared) -> ChaosSettings:
    """The faults that the tenant's requests, messages and events meet."""
    return _chaos_settings(await resources.chaos.faults_of(caller.tenant_id))


@router.put("/chaos", summary="Set the injected faults", responses=PUT_PROBLEMS)
async def put_chaos(caller: Admin, body: ChaosSettings, resources: Shared) -> ChaosSettings:
    """Sets the tenant's faults. They hold in every process within two seconds, and never on these routes."""
    faults = Faults(body.enabled, body.fail_percent, body.latency_ms)
    administrator = _administrator(caller)
    # The one change that is not PostgreSQL's own: it is made before its audit row commits, and not without it.
    async with resources.database.transaction([caller.tenant_id, caller.identity.tenant_id]) as conn:
        await lock_tenants(conn, [(administrator, caller.tenant_id)])
        await require_right(conn, administrator, caller.tenant_id)
        before = _chaos_settings(await resources.chaos.faults_of(caller.tenant_id))
        detail = change(before.model_dump(), body.model_dump())
        # A part of the transaction ends when all of it was written.
        async with conn.transaction():
            defer_audit(conn, [AuditRecord(caller.tenant_id, caller.origin, "chaos.put", caller.tenant_id, detail)])
        await resources.chaos.set_faults(caller.tenant_id, faults)
    return body


async def _submit[C: Change, O](resources: Resources, use_case: UseCase[C, O | Rejected], command: C) -> O:
    """The outcome; what was changed counts at once in this process."""
    user_id = getattr(command, "user_id", None)
    try:
        home = command.administrator.home
        outcome = await resources.commands.submit(use_case, command, tenants=[home] if home else [])
    finally:
        resources.access.forget(command.tenant_id, str(user_id) if user_id else None)
    if isinstance(outcome, Rejected):
        raise outcome.error
    return outcome


def _administrator(caller: Caller, *, mends_policies: bool = False) -> Administrator:
    return Administrator(caller.origin, caller.identity.tenant_id, datetime.now(UTC), mends_policies)


def _global_administrator(caller: Caller) -> Administrator:
    if caller.identity.tenant_id != EVERY_TENANT:
        raise PermissionDenied("Only a global administrator may do this.")
    return _administrator(caller)


def _user(user: queries.User) -> UserDocument:
    return UserDocument(
        id=str(user.id),
        email=user.email,
        roles=user.roles,
        disabled_at=user.disabled_at,
        created_at=user.created_at,
    )


def _audit_document(entry: queries.AuditEntry) -> AuditDocument:
    return AuditDocument(
        id=str(entry.id),
        at=entry.at,
        principal=entry.principal,
        address=entry.address,
        action=entry.action,
        target=entry.target,
        correlation_id=entry.correlation_id,
        detail=entry.detail,
    )


def _tenant(tenant: queries.Tenant) -> TenantDocument:
    return TenantDocument(
        id=tenant.id,
        name=tenant.name,
        plan=tenant.plan,
        region=tenant.region,
        zone=tenant.zone,
        suspended_at=tenant.suspended_at,
    )


def _chaos_settings(faults: Faults) -> ChaosSettings:
    return ChaosSettings(enabled=faults.enabled, fail_percent=faults.fail_percent, latency_ms=faults.latency_ms)
