"""Pages of a tenant's lists, as a dependency of their routes."""

from collections.abc import Callable

from fastapi import Request

from payments_ledger.access.caller import TenantId
from payments_ledger.access.resources import Shared
from payments_ledger.web.paging import PAGE_LIMIT, Cursor, Limit, Page


def page_of(list_name: str) -> Callable[..., Page]:
    """A dependency: the page of this list that the request asks for; its cursors fit no other list or tenant."""

    def page(
        request: Request,
        resources: Shared,
        tenant_id: TenantId,
        limit: Limit = PAGE_LIMIT,
        cursor: Cursor = None,
    ) -> Page:
        return Page(request.url, resources.cursors, f"{list_name} {tenant_id}", limit, cursor)

    return page
