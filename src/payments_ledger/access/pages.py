"""Pages of a tenant's lists, as a dependency of their routes."""

from collections.abc import Callable
from urllib.parse import urlencode

from fastapi import Request

from payments_ledger.access.caller import TenantId
from payments_ledger.access.resources import Shared
from payments_ledger.web.paging import PAGE_LIMIT, Cursor, Limit, Page

# What of a query is about the page and not about which rows are listed.
_OF_PAGE = ("limit", "cursor")


def page_of(list_name: str, *, is_filtered: bool = False) -> Callable[..., Page]:
    """A dependency: the page of this list that the request asks for; its cursors fit no other list or tenant.

    Those of a list that `is_filtered` fit no other filters either.
    """

    def page(
        request: Request,
        resources: Shared,
        tenant_id: TenantId,
        limit: Limit = PAGE_LIMIT,
        cursor: Cursor = None,
    ) -> Page:
        purpose = f"{list_name} {tenant_id}"
        if is_filtered:
            filters = sorted(item for item in request.query_params.multi_items() if item[0] not in _OF_PAGE)
            purpose = f"{purpose} {urlencode(filters)}"
        return Page(request.url, resources.cursors, purpose, limit, cursor)

    return page
