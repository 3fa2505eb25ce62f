"""A user of a fresh tenant who may write to its ledger."""

import pytest

from tests.integration.conftest import Api
from tests.integration.ledger.journal import Journal


@pytest.fixture
def journal(api: Api, tenant: str) -> Journal:
    return Journal(api, tenant)
