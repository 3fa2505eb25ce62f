"""`users`: list, add, disable, enable, unlock, assign roles. Passwords come from a prompt or from standard input."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from payments_ledger.cli.session import operate, operator
from payments_ledger.cli.settings import read_settings
from payments_ledger.cli.terminal import (
    CANNOT,
    AnyTenant,
    Json,
    Tenant,
    fail,
    print_columns,
    print_json,
)

if TYPE_CHECKING:
    from payments_ledger.postgres.database import Database
    from payments_ledger.tenants.queries import User

commands = typer.Typer(no_args_is_help=True, help="Users: list, add, disable, enable, unlock, assign roles.")

# NIST SP 800-63B asks for at least eight characters; the API reads no more than 1024.
PASSWORD_LENGTH_MIN = 8
PASSWORD_LENGTH_MAX = 1024

RoleArguments = Annotated[
    list[str] | None, typer.Argument(metavar="ROLE", help="Roles of the tenant: admin, ops, sales or its own.")
]
RoleOptions = Annotated[list[str] | None, typer.Option("--role", help="The same, as an option; can be repeated.")]
Email = Annotated[str, typer.Argument(help="E-mail address, in any case.")]


def _new_email(email: str) -> str:
    if not (3 <= len(email) <= 254 and "@" in email and email.isprintable()):
        raise typer.BadParameter("This is not an e-mail address.")
    return email


@commands.command("list")
def list_(tenant: Tenant, json: Json = False) -> None:
    """List every user of a tenant."""
    from payments_ledger.operations.users import list_users

    _print(operate(read_settings(), lambda database: list_users(database, tenant)), json)


@commands.command()
def add(
    email: Annotated[str, typer.Argument(help="E-mail address, unique in the tenant.", callback=_new_email)],
    tenant: Tenant,
    roles: RoleArguments = None,
    role: RoleOptions = None,
    json: Json = False,
) -> None:
    """Add a user. Asks for the password, or reads it from standard input if that is not a terminal."""
    from payments_ledger.operations.users import create_user

    given = _all_roles(roles, role)
    if not given:
        raise typer.BadParameter("A new user needs a role.")
    settings = read_settings()
    password = _read_password()
    user = operate(
        settings,
        lambda database: create_user(
            database, operator(), tenant_id=tenant, email=email, password=password, roles=given
        ),
    )
    _print([user], json)


@commands.command()
def disable(email: Email, tenant: Tenant, json: Json = False) -> None:
    """Disable a user. Takes effect within two seconds, also for tokens that they hold."""
    _set_disabled(email, tenant, True, json)


@commands.command()
def enable(email: Email, tenant: Tenant, json: Json = False) -> None:
    """Enable a disabled user again."""
    _set_disabled(email, tenant, False, json)


@commands.command("roles")
def give(
    email: Email, tenant: Tenant, roles: RoleArguments = None, role: RoleOptions = None, json: Json = False
) -> None:
    """Give a user exactly these roles and remove all others; without any, remove all."""
    from payments_ledger.operations.users import give_roles

    given = _all_roles(roles, role)
    user = operate(read_settings(), lambda database: give_roles(database, operator(), tenant, email, given))
    _print([user], json)


def _all_roles(arguments: list[str] | None, options: list[str] | None) -> frozenset[str]:
    return frozenset([*(arguments or ()), *(options or ())])


@commands.command()
def unlock(email: Email, tenant: AnyTenant = None, json: Json = False) -> None:
    """Let a user log in again immediately after too many failed logins, from any network."""
    from payments_ledger.access.attempts import Forgotten, RedisAttempts
    from payments_ledger.operations.users import find_tenants_of_user, unlock_user
    from payments_ledger.process.settings import MEMORY_URL

    settings = read_settings()
    tenants = operate(settings, lambda database: find_tenants_of_user(database, email, tenant))
    if settings.redis_url.startswith(MEMORY_URL):
        fail(
            "With REDIS_URL=memory:// each API process keeps failed logins in its own memory.",
            "Restart the API to forget them.",
            CANNOT,
        )

    async def unlock_in(database: "Database") -> Forgotten:
        attempts = RedisAttempts(settings.redis_url)
        try:
            return await unlock_user(database, operator(), attempts, email, tenants)
        finally:
            await attempts.close()

    forgotten = operate(settings, unlock_in)
    if json:
        print_json({"email": email.lower(), "tenants": tenants, **asdict(forgotten)})
    elif forgotten.networks or forgotten.in_the_hour:
        typer.echo(
            f"{email} can log in again in {', '.join(tenants)}. Forgotten: {forgotten.in_rows} failures in a row "
            f"(networks: {forgotten.networks}), {forgotten.in_the_hour} failures in this hour."
        )
    else:
        typer.echo(f"{email} was not locked: there are no failed logins to forget.")


def _set_disabled(email: str, tenant: str, disabled: bool, json: bool) -> None:
    from payments_ledger.operations.users import disable_user

    user = operate(
        read_settings(), lambda database: disable_user(database, operator(), tenant, email, disabled=disabled)
    )
    _print([user], json)


def _read_password() -> str:
    """Never from the arguments, which every user of the machine can read."""
    if sys.stdin.isatty():
        password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not PASSWORD_LENGTH_MIN <= len(password) <= PASSWORD_LENGTH_MAX:
        fail(f"A password has at least {PASSWORD_LENGTH_MIN} characters.", "Nothing was changed.")
    return password


def _print(users: "list[User]", json: bool) -> None:
    if json:
        print_json(*users)
        return
    rows = [(user.email, ",".join(user.roles), user.id, user.created_at, user.disabled_at) for user in users]
    print_columns(rows, "email", "roles", "id", "since", "disabled")
