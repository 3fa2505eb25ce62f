"""Correlation ids and trace parents: taken when they are well formed."""

import pytest

from payments_ledger.telemetry.tracing import begin_trace, current_trace

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("correlation_id", ["a", "corr-1", "A.b:c_d-9", "x" * 64])
def test_a_well_formed_correlation_id_is_kept(correlation_id: str) -> None:
    assert begin_trace(correlation_id, None).correlation_id == correlation_id
    assert current_trace().correlation_id == correlation_id


@pytest.mark.parametrize("correlation_id", [None, "", "x" * 65, "a b", "a\n", "é", "a/b"])
def test_any_other_is_replaced(correlation_id: str | None) -> None:
    replaced = begin_trace(correlation_id, None).correlation_id
    assert replaced != correlation_id
    assert len(replaced) == 36


@pytest.mark.parametrize(
    ("traceparent", "kept"),
    [
        (TRACEPARENT, TRACEPARENT),
        (None, None),
        ("", None),
        (TRACEPARENT.upper(), None),
        ("01" + TRACEPARENT[2:], None),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
        (f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01", None),
    ],
)
def test_a_trace_parent_is_kept_when_w3c_allows_it(traceparent: str | None, kept: str | None) -> None:
    assert begin_trace("a", traceparent).traceparent == kept
