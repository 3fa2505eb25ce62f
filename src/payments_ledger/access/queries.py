"""The SQL of users, their roles, and the policies of their tenants."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.rows import class_row, dict_row

from payments_ledger.access.policy import AmountRange, DailyHours, Effect, Policy
from payments_ledger.access.zones import find_zone
from payments_ledger.postgres.database import Connection
from payments_ledger.process.portions import in_portions


@dataclass(frozen=True, slots=True)
class EnabledUser:
    """A user who may log in, with what a token says of them."""

    tenant_id: str
    id: UUID
    password_hash: str
    roles: list[str]
    permissions: list[str]
    plan: str
    region: str


@dataclass(frozen=True, slots=True)
class UserAccess:
    """What counts of an enabled user when they ask for something: their roles, and the permissions these bring."""

    tenant_id: str
    id: UUID
    roles: tuple[str, ...]
    permissions: frozenset[str]


@dataclass(frozen=True, slots=True)
class TenantAccess:
    """What counts of a tenant when somebody asks for something in its name."""

    tenant_id: str
    plan: str
    region: str
    is_suspended: bool
    policies: tuple[Policy, ...]


async def tenants_of_email(conn: Connection, email: str) -> list[str]:
    """The tenants that have an enabled user of this e-mail; a policy lets a login see these rows, and no others."""
    await conn.execute("SELECT set_config('payments_ledger.login_email', %s, true)", [email])
    cursor = await conn.execute("SELECT tenant_id FROM users WHERE email = %s AND disabled_at IS NULL", [email])
    return [tenant_id for (tenant_id,) in await cursor.fetchall()]


async def find_user(conn: Connection, tenant_id: str, email: str) -> EnabledUser | None:
    """The user with this email, in lower case; None if unknown, disabled or without any permission."""
    cursor = conn.cursor(row_factory=class_row(EnabledUser))
    await cursor.execute(
        """
        SELECT "user".tenant_id, "user".id, "user".password_hash, tenant.plan, tenant.region,
               array_agg(DISTINCT role.name) AS roles,
               array_agg(DISTINCT permission) AS permissions
        FROM users AS "user"
        JOIN tenants AS tenant USING (tenant_id)
        JOIN user_roles AS held ON held.tenant_id = "user".tenant_id AND held.user_id = "user".id
        JOIN roles AS role ON role.tenant_id = held.tenant_id AND role.name = held.role
        CROSS JOIN unnest(role.permissions) AS permission
        WHERE "user".tenant_id = %s AND "user".email = %s AND "user".disabled_at IS NULL
        GROUP BY "user".tenant_id, "user".id, "user".password_hash, tenant.plan, tenant.region
        """,
        [tenant_id, email],
    )
    return await cursor.fetchone()


async def find_user_accesses(
    conn: Connection, keys: Collection[tuple[str, UUID]]
) -> dict[tuple[str, UUID], UserAccess]:
    """The enabled users among the given (tenant, id) pairs."""
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute(
        """
        SELECT "user".tenant_id, "user".id,
               coalesce(array_agg(role.name) FILTER (WHERE role.name IS NOT NULL), '{}') AS roles,
               coalesce(array_agg(permission) FILTER (WHERE permission IS NOT NULL), '{}') AS permissions
        FROM users AS "user"
        JOIN unnest(%s::text[], %s::uuid[]) AS wanted (tenant_id, id) USING (tenant_id, id)
        LEFT JOIN user_roles AS held ON held.tenant_id = "user".tenant_id AND held.user_id = "user".id
        LEFT JOIN roles AS role ON role.tenant_id = held.tenant_id AND role.name = held.role
        LEFT JOIN LATERAL unnest(role.permissions) AS permission ON true
        WHERE "user".disabled_at IS NULL
        GROUP BY "user".tenant_id, "user".id
        """,
        [[tenant_id for tenant_id, _ in keys], [user_id for _, user_id in keys]],
    )
    return {
        (row["tenant_id"], row["id"]): UserAccess(
            row["tenant_id"], row["id"], tuple(sorted(set(row["roles"]))), frozenset(row["permissions"])
        )
        for row in await cursor.fetchall()
    }


async def find_tenant_accesses(conn: Connection, tenant_ids: Collection[str]) -> dict[str, TenantAccess]:
    """Those of the tenants that exist, with their policies in the order of their names."""
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute(
        "SELECT tenant_id, plan, region, suspended_at FROM tenants WHERE tenant_id = ANY (%s)", [list(tenant_ids)]
    )
    tenants = await cursor.fetchall()
    policies = await list_policies(conn, tenant_ids)
    return {
        row["tenant_id"]: TenantAccess(
            row["tenant_id"],
            row["plan"],
            row["region"],
            row["suspended_at"] is not None,
            tuple(policies.get(row["tenant_id"], ())),
        )
        for row in tenants
    }


async def list_policies(conn: Connection, tenant_ids: Collection[str]) -> dict[str, list[Policy]]:
    """The policies of the tenants, in the order of their names."""
    cursor = conn.cursor(row_factory=dict_row, binary=True)
    await cursor.execute(
        "SELECT * FROM policies WHERE tenant_id = ANY (%s) ORDER BY tenant_id, name", [list(tenant_ids)]
    )
    policies: dict[str, list[Policy]] = {}
    async for row in in_portions(await cursor.fetchall()):
        policies.setdefault(row["tenant_id"], []).append(_policy(row))
    return policies


async def put_policies(conn: Connection, tenant_id: str, policies: Sequence[Policy]) -> None:
    """Adds the policies to the tenant's, in the place of those that have the same name."""
    for policy in policies:
        amount, hours = policy.amount, policy.hours
        await conn.execute(
            """
            INSERT INTO policies
                (tenant_id, name, effect, actions, roles, subjects, plans, regions,
                 currency, amount_minimum, amount_maximum, hours_start, hours_end, hours_zone)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (tenant_id, name) DO UPDATE
                SET effect = EXCLUDED.effect, actions = EXCLUDED.actions, roles = EXCLUDED.roles,
                    subjects = EXCLUDED.subjects, plans = EXCLUDED.plans, regions = EXCLUDED.regions,
                    currency = EXCLUDED.currency, amount_minimum = EXCLUDED.amount_minimum,
                    amount_maximum = EXCLUDED.amount_maximum, hours_start = EXCLUDED.hours_start,
                    hours_end = EXCLUDED.hours_end, hours_zone = EXCLUDED.hours_zone
            """,
            [
                tenant_id,
                policy.name,
                policy.effect,
                *(sorted(part) for part in (policy.actions, policy.roles, policy.subjects)),
                *(sorted(part) for part in (policy.plans, policy.regions)),
                amount.currency if amount else None,
                amount.minimum if amount else None,
                amount.maximum if amount else None,
                hours.start if hours else None,
                hours.end if hours else None,
                hours.zone.key if hours else None,
            ],
        )


async def delete_policy(conn: Connection, tenant_id: str, name: str) -> None:
    """Does nothing where the tenant has no policy of this name."""
    await conn.execute("DELETE FROM policies WHERE tenant_id = %s AND name = %s", [tenant_id, name])


def _policy(row: dict[str, Any]) -> Policy:
    return Policy(
        name=row["name"],
        effect=Effect(row["effect"]),
        actions=frozenset(row["actions"]),
        roles=frozenset(row["roles"]),
        subjects=frozenset(row["subjects"]),
        plans=frozenset(row["plans"]),
        regions=frozenset(row["regions"]),
        amount=AmountRange(row["currency"], row["amount_minimum"], row["amount_maximum"]) if row["currency"] else None,
        hours=DailyHours(row["hours_start"], row["hours_end"], find_zone(row["hours_zone"]))
        if row["hours_zone"]
        else None,
    )
