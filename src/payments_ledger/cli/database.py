"""`migrate`, `seed` and `verify`: the database's schema, its demonstration data, and the audit of its books."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from payments_ledger.cli.terminal import (
    CANNOT,
    REFUSED,
    AnyTenant,
    Json,
    as_utc,
    errors,
    fail,
    print_json,
    progress_bar,
    read_settings,
    run,
)

if TYPE_CHECKING:
    from payments_ledger.schema.migrate import Missing
    from payments_ledger.verify.audit import Result

# As in payments/invariants.py, which is only imported when it is needed.
AUTHORIZED_SECONDS_MAX = 900


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Only say what is to be applied. Exit status 1 if anything is.")
    ] = False,
    roles_of: Annotated[
        str | None,
        typer.Option(help="Only make the roles of a database of this name, which a dump of it needs to be restored."),
    ] = None,
    json: Json = False,
) -> None:
    """Bring the database schema up to date, or change nothing. Can be repeated, and started twice at once."""
    from sqlalchemy.exc import OperationalError, ProgrammingError

    from payments_ledger.schema import migrate as migrations

    url = read_settings().database_url
    applied: list[Missing] = []
    try:
        if check:
            _tell_missing(migrations.missing_migrations(url), json)
        elif roles_of is not None:
            migrations.make_roles_of(url, roles_of)
        else:
            applied = migrations.migrate(url)
    except OperationalError as error:
        fail(f"The database cannot be reached: {error.orig}", "Look at DATABASE_URL, and whether it runs.", CANNOT)
    except ProgrammingError as error:
        fail(f"The database refuses: {error.orig}", "The user must own the database and have CREATEROLE.", CANNOT)
    except migrations.MigrationGaveUp as error:
        fail(error.detail, "Run it again when that transaction is over; docs/how-to/operations.md, Upgrades.", REFUSED)
    except migrations.MigrationsDisagree as error:
        fail(error.detail, "Use the version of this program that made the schema, or a newer one.", REFUSED)
    if json:
        print_json({"schema": migrations.newest_version(), "applied": [migration.version for migration in applied]})
    elif roles_of is not None:
        typer.echo(f"The roles of a database named {roles_of} are there.")
    else:
        for migration in applied:
            typer.echo(f"applied: {migration.version} {migration.title}")
        typer.echo("The schema is up to date.")


def _tell_missing(missing: "list[Missing]", json: bool) -> None:
    """Ends the command if there is anything to apply."""
    if not missing:
        return
    if json:
        print_json(*missing)
    else:
        for migration in missing:
            typer.echo(f"to be applied: {migration.version} {migration.title}")
    raise typer.Exit(REFUSED)


def seed(
    unless_production: Annotated[
        bool, typer.Option("--unless-production", help="With APP_ENV=production do nothing, instead of failing.")
    ] = False,
    json: Json = False,
) -> None:
    """Add the demo tenants and users. What exists already is left as it is. Refused with APP_ENV=production."""
    from payments_ledger.demo import seed as demo

    settings = read_settings()
    if settings.app_env == "production":
        what = "APP_ENV is production, and the passwords of the demo users are public: nothing was added."
        if unless_production:
            errors.print(what, markup=False, highlight=False, soft_wrap=True)
            return
        fail(what, "Add users of your own: payments-ledger users add.", REFUSED)
    run(settings, demo.seed(settings.database_url))
    if json:
        print_json(*demo.DEMO_USERS)
        return
    for user in demo.DEMO_USERS:
        typer.echo(f"{user.email} / {user.password}, tenant {user.tenant_id}, role {user.role}")


def verify(
    tenant: AnyTenant = None,
    since: Annotated[datetime | None, typer.Option(help="Only what was written since this time (UTC).")] = None,
    authorized_seconds_max: Annotated[
        int, typer.Option(min=0, help="A payment that is AUTHORIZED for longer is a failure.")
    ] = AUTHORIZED_SECONDS_MAX,
    json: Json = False,
) -> None:
    """Audit the books: recompute everything from the rows, change nothing. Exit status 1 if something does not hold."""
    from rich.console import Console

    from payments_ledger.cli.verify_report import as_json, print_result
    from payments_ledger.invariants import BOUNDS, INVARIANTS
    from payments_ledger.verify.audit import audit

    settings = read_settings()
    console = Console()

    async def examine() -> "list[Result]":
        results: list[Result] = []
        with progress_bar() as progress:
            bar = progress.add_task("Auditing", total=len(INVARIANTS))
            async for result in audit(
                settings.database_url,
                INVARIANTS,
                tenant_id=tenant,
                since=as_utc(since),
                bounds=BOUNDS | {"authorized_seconds_max": authorized_seconds_max},
            ):
                results.append(result)
                if not json:
                    print_result(console, result)
                progress.update(bar, advance=1, description=result.invariant.name)
        return results

    results = run(settings, examine())
    if json:
        typer.echo(as_json(results))
    raise typer.Exit(0 if all(result.ok for result in results) else REFUSED)
