"""`tenants`: list, add, suspend, resume."""

from typing import TYPE_CHECKING, Annotated

import typer

from payments_ledger.cli.session import operate, operator
from payments_ledger.cli.settings import read_settings
from payments_ledger.cli.terminal import Json, print_columns, print_json

if TYPE_CHECKING:
    from payments_ledger.tenants.queries import Tenant

commands = typer.Typer(no_args_is_help=True, help="Tenants: list, add, suspend, resume.")

TENANT_ID = r"[A-Za-z0-9._:-]{1,64}"

Id = Annotated[str, typer.Argument(help="The tenant's id.")]


def _new_id(id: str) -> str:  # noqa: A002
    import re

    if not re.fullmatch(TENANT_ID, id, re.ASCII):
        raise typer.BadParameter("An id has 1 to 64 letters, digits and . _ : -")
    return id


@commands.command("list")
def list_(json: Json = False) -> None:
    """List every tenant."""
    from payments_ledger.operations.tenants import list_tenants

    _print(operate(read_settings(), list_tenants), json)


@commands.command()
def add(
    id: Annotated[str, typer.Argument(help="1 to 64 letters, digits and . _ : -", callback=_new_id)],  # noqa: A002
    name: Annotated[str | None, typer.Option(help="The id by default.")] = None,
    plan: Annotated[str, typer.Option(help="Attribute that policies can match on.")] = "free",
    region: Annotated[str, typer.Option(help="Attribute that policies can match on.")] = "unknown",
    zone: Annotated[
        str, typer.Option(help="IANA time zone of the books' days; it never changes.")
    ] = "America/Sao_Paulo",
    json: Json = False,
) -> None:
    """Add a tenant, with the roles, policies and accounts that every tenant starts with."""
    from payments_ledger.operations.tenants import create_tenant

    tenant = operate(
        read_settings(),
        lambda database: create_tenant(
            database, operator(), tenant_id=id, name=name or id, plan=plan, region=region, zone=zone
        ),
    )
    _print([tenant], json)


@commands.command()
def suspend(id: Id, json: Json = False) -> None:  # noqa: A002
    """Refuse every request on behalf of this tenant, within two seconds. What is authorized still settles."""
    _set_suspended(id, True, json)


@commands.command()
def resume(id: Id, json: Json = False) -> None:  # noqa: A002
    """Resume a suspended tenant."""
    _set_suspended(id, False, json)


def _set_suspended(id: str, suspended: bool, json: bool) -> None:  # noqa: A002
    from payments_ledger.operations.tenants import suspend_tenant

    tenant = operate(read_settings(), lambda database: suspend_tenant(database, operator(), id, suspended=suspended))
    _print([tenant], json)


def _print(tenants: "list[Tenant]", json: bool) -> None:
    if json:
        print_json(*tenants)
        return
    rows = [
        (tenant.id, tenant.name, tenant.plan, tenant.region, tenant.zone, tenant.suspended_at) for tenant in tenants
    ]
    print_columns(rows, "id", "name", "plan", "region", "zone", "suspended")
