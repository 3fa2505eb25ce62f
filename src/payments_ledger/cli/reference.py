"""`openapi` and `asyncapi`: the schemas of what the engine serves and sends, made from its types."""

import json as json_format

import typer

from payments_ledger.cli.settings import read_settings
from payments_ledger.cli.terminal import Json, print_json


def openapi() -> None:
    """Print the OpenAPI document of the HTTP API, in JSON."""
    from payments_ledger.api import create_app

    typer.echo(json_format.dumps(create_app(read_settings(connects=False)).openapi(), indent=2, ensure_ascii=False))


def asyncapi(json: Json = False) -> None:
    """Print the AsyncAPI document of the messages, as it stands in docs/asyncapi.yaml."""
    from payments_ledger.reference import asyncapi as contract

    if json:
        print_json(contract.content())
    else:
        typer.echo(contract.document(), nl=False)
