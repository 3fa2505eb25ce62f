"""Pages of a tenant's lists, as a dependency of their routes."""

from collections.abc import Callable
from urllib.parse import urlencode

from fastapi import Request

from payments_ledger.access.caller import TenantId
from payments_ledger.access.resources import Shared
from payments_ledger.web.paging import PAGE_LIMIT, Cursor, Limit, Page

# What of a query is about the page and not about which rows are listed.
_OF_PAGE = ("limit", "cursor")


def page_of(list_name: str, *, is_filtered: bool = False, rows: int = PAGE_LIMIT) -> Callable[..., Page]:
    """A dependency: the page of this list that the request asks for; its cursors fit no other list or tenant.

    Those of a list that `is_filtered` fit no other filters either. A page has up to `rows`, if no other limit is given.
    """

    def page(
        request: Request,
        resources: Shared,
        tenant_id: TenantId,
        limit: Limit = rows,
        cursor: Cursor = None,
    ) -> Page:
        purpose = f"{list_name} {tenant_id}"
        if is_filtered:
            filters = sorted(item for item in request.query_params.multi_items() if item[0] not in _OF_PAGE)
            # The path may name what the list is of, such as the refunds of one payment.
            purpose = f"{purpose} {request.url.path}?{urlencode(filters)}"
        return Page(request.url, resources.cursors, purpose, limit, cursor)

    return page
