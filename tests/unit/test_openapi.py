"""The published contract is that of the code."""

import json
from pathlib import Path

from payments_ledger.api import create_app
from payments_ledger.platform.settings import Settings

PUBLISHED = Path(__file__).parents[2] / "docs" / "openapi.json"


def test_the_published_document_is_up_to_date() -> None:
    """When this fails, look at the difference as a client would, then run scripts/api-export.sh."""
    assert json.loads(PUBLISHED.read_text()) == create_app(Settings(_env_file=None)).openapi()
