"""`tenants`: add them, suspend them, let them go on."""

from typing import TYPE_CHECKING, Annotated

import typer

from payments_ledger.cli.terminal import Json, print_columns, print_json, read_settings, run

if TYPE_CHECKING:
    from payments_ledger.tenants.queries import Tenant

commands = typer.Typer(no_args_is_help=True, help="Tenants: add them, suspend them, let them go on.")

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
    from payments_ledger.operations.users import list_tenants

    settings = read_settings()
    _tell(run(settings, list_tenants(settings.database_url)), json)


@commands.command()
def add(
    id: Annotated[str, typer.Argument(help="1 to 64 letters, digits and . _ : -", callback=_new_id)],  # noqa: A002
    name: Annotated[str | None, typer.Option(help="By default the id.")] = None,
    plan: Annotated[str, typer.Option(help="What policies may ask for.")] = "free",
    region: Annotated[str, typer.Option(help="What policies may ask for.")] = "unknown",
    json: Json = False,
) -> None:
    """Add a tenant, with the roles, policies and accounts that every tenant begins with."""
    from payments_ledger.operations.users import create_tenant

    settings = read_settings()
    work = create_tenant(settings.database_url, tenant_id=id, name=name or id, plan=plan, region=region)
    _tell([run(settings, work)], json)


@commands.command()
def suspend(id: Id, json: Json = False) -> None:  # noqa: A002
    """Refuse every request in this tenant's name, within two seconds. What is authorized still settles."""
    _set_suspended(id, True, json)


@commands.command()
def resume(id: Id, json: Json = False) -> None:  # noqa: A002
    """Let a suspended tenant go on."""
    _set_suspended(id, False, json)


def _set_suspended(id: str, suspended: bool, json: bool) -> None:  # noqa: A002
    from payments_ledger.operations.users import suspend_tenant

    settings = read_settings()
    _tell([run(settings, suspend_tenant(settings.database_url, id, suspended=suspended))], json)


def _tell(tenants: "list[Tenant]", json: bool) -> None:
    if json:
        print_json(*tenants)
        return
    rows = [(tenant.id, tenant.name, tenant.plan, tenant.region, tenant.suspended_at) for tenant in tenants]
    print_columns(rows, "id", "name", "plan", "region", "suspended")
