"""The HTTP routes of administration, all under /v1/admin and for the tenant named in X-Tenant-Id."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from payments_ledger.access.access_cache import AccessCache
from payments_ledger.access.caller import TENANT_PROBLEMS, Caller, CallerRoute, caller_with
from payments_ledger.access.policy import Permission
from payments_ledger.access.queries import list_policies
from payments_ledger.access.tokens import EVERY_TENANT
from payments_ledger.chaos.faults import LATENCY_MS_MAX, Chaos, Faults
from payments_ledger.commit.audit import AuditRecord, change, defer_audit
from payments_ledger.commit.group_commit import GroupCommit, UseCase
from payments_ledger.errors import PermissionDenied, Rejected, UnknownTenant
from payments_ledger.ledger.period import Period
from payments_ledger.postgres.database import Database
from payments_ledger.tenants import queries
from payments_ledger.tenants.administration import Administrator, Change, lock_tenants, require_right
from payments_ledger.tenants.queries import AuditFilter
from payments_ledger.tenants.schemas import (
    NAME,
    PolicyDocument,
    PolicyTerms,
    Values,
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
from payments_ledger.web.cursors import CursorSigner
from payments_ledger.web.exact_requests import Body
from payments_ledger.web.paging import PAGE_LIMIT, Cursor, Limit, json_array, link_to_next
from payments_ledger.web.parameters import CanonicalUUID, Instant, canonical
from payments_ledger.web.problems import BODY_PROBLEMS, documented

router = APIRouter(prefix="/v1/admin", tags=["administration"], route_class=CallerRoute)

Admin = Annotated[Caller, Depends(caller_with(Permission.ADMIN))]
# Not bound by a policy that cannot be decided on this machine: it must be possible to remove that one.
PolicyMender = Annotated[Caller, Depends(caller_with(Permission.ADMIN, mends_policies=True))]
PolicyName = Annotated[str, NAME, Path(description="The policy's name", examples=["ops-limit"])]
UserId = Annotated[CanonicalUUID, Path(description="The user", examples=["01a20568-0001-7000-8000-000000000001"])]
Wanted = Annotated[str, StringConstraints(min_length=1, max_length=256), WITHOUT_CONTROLS] | None

READ_PROBLEMS = documented(*TENANT_PROBLEMS)
CHANGE_PROBLEMS = documented(*TENANT_PROBLEMS, HTTPStatus.CONFLICT)
PUT_PROBLEMS = CHANGE_PROBLEMS | documented(*BODY_PROBLEMS)


class UserDocument(BaseModel):
    """`disabled_at` is null for a user who may log in."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01a20568-0001-7000-8000-000000000001",
                    "email": "ops@demo",
                    "roles": ["ops"],
                    "disabled_at": "2026-01-31T12:00:00Z",
                    "created_at": "2026-01-01T00:00:00Z",
                }
            ]
        }
    )

    id: str
    email: str
    roles: list[str]
    disabled_at: datetime | None
    created_at: datetime


class Roles(Body):
    """Exactly these; an empty list takes all away."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"roles": ["ops"]}]})

    roles: Values


class TenantDocument(BaseModel):
    """`suspended_at` is null for a tenant whose users may use it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "tenant_demo",
                    "name": "Demo",
                    "plan": "pro",
                    "region": "region-a",
                    "suspended_at": "2026-01-31T12:00:00Z",
                }
            ]
        }
    )

    id: str
    name: str
    plan: str
    region: str
    suspended_at: datetime | None


class AuditDocument(BaseModel):
    """`detail` of a change holds the target `before` and `after`; null is that there was or is none."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01a20568-9b2c-7d11-8e55-0242ac120003",
                    "at": "2026-01-31T12:00:00Z",
                    "principal": "01a20568-0001-7000-8000-000000000001",
                    "address": "192.0.2.7",
                    "action": "payment.authorize",
                    "target": "01a20568-8a1a-72a7-9083-66e400122dd8",
                    "correlation_id": "corr-demo-1",
                    "detail": {
                        "before": {"status": "CREATED"},
                        "after": {"status": "AUTHORIZED"},
                        "amount": "100.00 BRL",
                    },
                }
            ]
        }
    )

    id: str
    at: datetime
    principal: str
    address: str | None
    action: str
    target: str
    correlation_id: str
    detail: dict[str, Any]


class ChaosSettings(Body):
    """`fail_percent` of the tenant's requests, messages and events fail; requests and messages take longer."""

    # Strict: false is no number, and "yes" is no boolean.
    model_config = ConfigDict(
        strict=True, json_schema_extra={"examples": [{"enabled": True, "fail_percent": 20, "latency_ms": 300}]}
    )

    enabled: bool
    fail_percent: Annotated[int, Field(ge=0, le=100)] = 0
    latency_ms: Annotated[int, Field(ge=0, le=LATENCY_MS_MAX)] = 0


# ----------------------------------------------------------------------------------------------------------------------
# Policies


@router.get("/policies", summary="List the policies", response_model=list[PolicyDocument], responses=READ_PROBLEMS)
async def list_tenant_policies(request: Request, caller: PolicyMender) -> Response:
    """The tenant's policies, in the order of their names."""
    database: Database = request.app.state.database
    async with database.transaction([caller.tenant_id]) as conn:
        policies = await list_policies(conn, [caller.tenant_id])
    return await json_array(map(show_policy, policies.get(caller.tenant_id, ())))


@router.put("/policies/{name}", summary="Put a policy", responses=PUT_PROBLEMS)
async def put_tenant_policy(request: Request, caller: Admin, name: PolicyName, body: PolicyTerms) -> PolicyDocument:
    """Adds the policy or replaces the one of this name. It holds in every process within two seconds."""
    command = PutPolicy(caller.tenant_id, read_policy(name, body), _administrator(caller))
    return show_policy(await _submit(request, put_policy, command))


@router.delete(
    "/policies/{name}", summary="Delete a policy", status_code=HTTPStatus.NO_CONTENT, responses=CHANGE_PROBLEMS
)
async def delete_tenant_policy(request: Request, caller: PolicyMender, name: PolicyName) -> None:
    """Removes the policy. A tenant without any is one in which nobody may do anything."""
    administrator = _administrator(caller, mends_policies=True)
    await _submit(request, delete_policy, DeletePolicy(caller.tenant_id, name, administrator))


# ----------------------------------------------------------------------------------------------------------------------
# Users


@router.get("/users", summary="List the users", responses=READ_PROBLEMS)
async def list_tenant_users(
    request: Request, response: Response, caller: Admin, limit: Limit = PAGE_LIMIT, cursor: Cursor = None
) -> list[UserDocument]:
    """The tenant's users, the first made first; the next page is in `Link: <…>; rel="next"`."""
    cursors: CursorSigner = request.app.state.cursors
    purpose = f"users {caller.tenant_id}"
    after = cursors.read(purpose, cursor) if cursor else None
    database: Database = request.app.state.database
    async with database.transaction([caller.tenant_id]) as conn:
        users = await queries.list_users(conn, caller.tenant_id, after=after, limit=limit + 1)
    if len(users) > limit:
        last = users[limit - 1]
        response.headers["Link"] = link_to_next(request, cursors.write(purpose, last.created_at, last.id))
    return [_user(user) for user in users[:limit]]


@router.post("/users/{user_id}/disable", summary="Disable a user", responses=CHANGE_PROBLEMS)
async def disable_user(request: Request, caller: Admin, user_id: UserId) -> UserDocument:
    """Bars the user. Tokens that they hold stop working within two seconds."""
    command = SetUserDisabled(caller.tenant_id, user_id, True, _administrator(caller))
    return _user(await _submit(request, set_user_disabled, command))


@router.post("/users/{user_id}/enable", summary="Enable a user", responses=CHANGE_PROBLEMS)
async def enable_user(request: Request, caller: Admin, user_id: UserId) -> UserDocument:
    """Lets the user in again."""
    command = SetUserDisabled(caller.tenant_id, user_id, False, _administrator(caller))
    return _user(await _submit(request, set_user_disabled, command))


@router.put("/users/{user_id}/roles", summary="Give a user roles", responses=PUT_PROBLEMS)
async def put_user_roles(request: Request, caller: Admin, user_id: UserId, body: Roles) -> UserDocument:
    """Gives the user exactly these roles. They count within two seconds, whatever the user's tokens say."""
    command = AssignRoles(caller.tenant_id, user_id, frozenset(body.roles), _administrator(caller))
    return _user(await _submit(request, assign_roles, command))


# ----------------------------------------------------------------------------------------------------------------------
# The tenant


@router.get("/tenant", summary="Show the tenant", responses=READ_PROBLEMS)
async def get_tenant(request: Request, caller: Admin) -> TenantDocument:
    """The tenant, and since when it is suspended, if it is."""
    database: Database = request.app.state.database
    async with database.transaction([caller.tenant_id]) as conn:
        tenant = await queries.find_tenant(conn, caller.tenant_id)
    if tenant is None:
        raise UnknownTenant
    return _tenant(tenant)


@router.post("/tenant/suspend", summary="Suspend the tenant", responses=CHANGE_PROBLEMS)
async def suspend_tenant(request: Request, caller: Admin) -> TenantDocument:
    """Bars all users of the tenant within two seconds; only global administrators may. What is paid still settles."""
    command = SetTenantSuspended(caller.tenant_id, True, _global_administrator(caller))
    return _tenant(await _submit(request, set_tenant_suspended, command))


@router.post("/tenant/resume", summary="Resume the tenant", responses=CHANGE_PROBLEMS)
async def resume_tenant(request: Request, caller: Admin) -> TenantDocument:
    """Ends a suspension; only global administrators may."""
    command = SetTenantSuspended(caller.tenant_id, False, _global_administrator(caller))
    return _tenant(await _submit(request, set_tenant_suspended, command))


# ----------------------------------------------------------------------------------------------------------------------
# The audit log


@router.get("/audit", summary="List the audit log", responses=READ_PROBLEMS)
async def list_audit(
    request: Request,
    response: Response,
    caller: Admin,
    start: Annotated[Instant | None, Query(alias="from", description="Inclusive; UTC without a zone")] = None,
    end: Annotated[Instant | None, Query(alias="to", description="Exclusive; UTC without a zone")] = None,
    principal: Annotated[Wanted, Query(description="Who did it: a user's id, or a part of the engine")] = None,
    action: Annotated[Wanted, Query(description="What was done, such as payment.create")] = None,
    target: Annotated[Wanted, Query(description="What it was done to, such as a payment's id")] = None,
    limit: Limit = PAGE_LIMIT,
    cursor: Cursor = None,
) -> list[AuditDocument]:
    """Changes and refusals, newest first; the next page is in `Link: <…>; rel="next"`."""
    wanted = AuditFilter(Period(start, end), principal and canonical(principal), action, target)
    cursors: CursorSigner = request.app.state.cursors
    purpose = f"audit {caller.tenant_id}"
    after = cursors.read(purpose, cursor) if cursor else None
    database: Database = request.app.state.database
    async with database.transaction([caller.tenant_id]) as conn:
        entries = await queries.list_audit_entries(conn, caller.tenant_id, wanted, after=after, limit=limit + 1)
    if len(entries) > limit:
        last = entries[limit - 1]
        response.headers["Link"] = link_to_next(request, cursors.write(purpose, last.at, last.id))
    return [
        AuditDocument(
            id=str(entry.id),
            at=entry.at,
            principal=entry.principal,
            address=entry.address,
            action=entry.action,
            target=entry.target,
            correlation_id=entry.correlation_id,
            detail=entry.detail,
        )
        for entry in entries[:limit]
    ]


# ----------------------------------------------------------------------------------------------------------------------
# Chaos


@router.get("/chaos", summary="Show the injected faults", responses=READ_PROBLEMS)
async def get_chaos(request: Request, caller: Admin) -> ChaosSettings:
    """The faults that the tenant's requests, messages and events meet."""
    chaos: Chaos = request.app.state.chaos
    return _chaos_settings(await chaos.faults_of(caller.tenant_id))


@router.put("/chaos", summary="Set the injected faults", responses=PUT_PROBLEMS)
async def put_chaos(request: Request, caller: Admin, body: ChaosSettings) -> ChaosSettings:
    """Sets the tenant's faults. They hold in every process within two seconds, and never on these routes."""
    chaos: Chaos = request.app.state.chaos
    faults = Faults(body.enabled, body.fail_percent, body.latency_ms)
    administrator = _administrator(caller)
    database: Database = request.app.state.database
    # The one change that is not PostgreSQL's own: it is made before its audit row commits, and not without it.
    async with database.transaction([caller.tenant_id, caller.identity.tenant_id]) as conn:
        await lock_tenants(conn, [(administrator, caller.tenant_id)])
        await require_right(conn, administrator, caller.tenant_id)
        before = _chaos_settings(await chaos.faults_of(caller.tenant_id))
        detail = change(before.model_dump(), body.model_dump())
        # A part of the transaction ends when all of it was written.
        async with conn.transaction():
            defer_audit(conn, [AuditRecord(caller.tenant_id, caller.origin, "chaos.put", caller.tenant_id, detail)])
        await chaos.set_faults(caller.tenant_id, faults)
    return body


async def _submit[C: Change, O](request: Request, use_case: UseCase[C, O | Rejected], command: C) -> O:
    """The outcome; what was changed counts at once in this process."""
    commands: GroupCommit = request.app.state.commands
    access: AccessCache = request.app.state.access
    user_id = getattr(command, "user_id", None)
    try:
        home = command.administrator.home
        outcome = await commands.submit(use_case, command, tenants=[home] if home else [])
    finally:
        access.forget(command.tenant_id, str(user_id) if user_id else None)
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


def _tenant(tenant: queries.Tenant) -> TenantDocument:
    return TenantDocument(
        id=tenant.id, name=tenant.name, plan=tenant.plan, region=tenant.region, suspended_at=tenant.suspended_at
    )


def _chaos_settings(faults: Faults) -> ChaosSettings:
    return ChaosSettings(enabled=faults.enabled, fail_percent=faults.fail_percent, latency_ms=faults.latency_ms)
