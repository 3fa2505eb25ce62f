"""`migrate` and `seed`: the database's schema and its demonstration data."""

from typing import TYPE_CHECKING, Annotated

import typer

from payments_ledger.cli.settings import read_settings
from payments_ledger.cli.terminal import (
    CANNOT,
    REFUSED,
    Json,
    errors,
    fail,
    print_json,
    run,
)

if TYPE_CHECKING:
    from payments_ledger.schema.migrate import Missing


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Only list what would be applied. Exit status 1 if anything would.")
    ] = False,
    roles_of: Annotated[
        str | None,
        typer.Option(help="Only create the roles of a database with this name, which restoring a dump of it needs."),
    ] = None,
    json: Json = False,
) -> None:
    """Bring the database schema up to date, or change nothing. Safe to repeat, and to start twice at once."""
    from sqlalchemy.exc import OperationalError, ProgrammingError

    from payments_ledger.schema import migrate as migrations

    url = read_settings().database_url
    applied: list[Missing] = []
    try:
        if check:
            _report_missing(migrations.missing_migrations(url), json)
        elif roles_of is not None:
            migrations.make_roles_of(url, roles_of)
        else:
            applied = migrations.migrate(url)
    except OperationalError as error:
        fail(f"Cannot reach PostgreSQL: {error.orig}", "Check DATABASE_URL, and whether PostgreSQL is running.", CANNOT)
    except ProgrammingError as error:
        fail(f"PostgreSQL refuses: {error.orig}", "The user must own the database and have CREATEROLE.", CANNOT)
    except migrations.MigrationGaveUp as error:
        fail(
            error.detail,
            "Run it again when that transaction has ended; see Upgrades in docs/how-to/operations.md.",
            REFUSED,
        )
    except migrations.MigrationsDisagree as error:
        fail(error.detail, "Use the version of this program that made the schema, or a newer one.", REFUSED)
    if json:
        print_json({"schema": migrations.newest_version(), "applied": [migration.version for migration in applied]})
    elif roles_of is not None:
        typer.echo(f"The roles of a database named {roles_of} exist.")
    else:
        for migration in applied:
            typer.echo(f"applied: {migration.version} {migration.title}")
        typer.echo("The schema is up to date.")


def _report_missing(missing: "list[Missing]", json: bool) -> None:
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
        bool, typer.Option("--unless-production", help="With APP_ENV=production do nothing instead of failing.")
    ] = False,
    json: Json = False,
) -> None:
    """Add the demo tenants and users that do not exist yet. Refused with APP_ENV=production."""
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
