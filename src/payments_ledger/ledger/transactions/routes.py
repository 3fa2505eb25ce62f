"""The HTTP routes of transactions: record one or many, read, post or void what is held, reverse, and notes.

Long because a transaction has many routes, each with its parameters.
"""

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from uuid_utils.compat import uuid7

from payments_ledger.access.caller import TENANT_PROBLEMS, Caller, caller_with
from payments_ledger.access.commands import Operation, RequiredKey, refusal, rendering
from payments_ledger.access.pages import page_of
from payments_ledger.access.policy import Permission
from payments_ledger.access.resources import Resources, Shared
from payments_ledger.commit.audit import Origin
from payments_ledger.commit.idempotency import StoredResponse, fingerprint
from payments_ledger.errors import (
    ConditionFailed,
    Forbidden,
    Invalid,
    InvalidAmount,
    LedgerError,
    ReferenceTaken,
    Rejected,
    TransactionNotFound,
)
from payments_ledger.ledger.chart.schemas import Code
from payments_ledger.ledger.period import Period
from payments_ledger.ledger.schemas import RequestedPeriod
from payments_ledger.ledger.transactions import queries
from payments_ledger.ledger.transactions.queries import Note, TransactionFilter
from payments_ledger.ledger.transactions.schemas import (
    TRANSACTION_EXAMPLE,
    NoteDocument,
    NoteRequest,
    PostRequest,
    Reference,
    ReverseRequest,
    TransactionBatch,
    TransactionDocument,
    TransactionOutcomes,
    TransactionRequest,
    dry_run_body,
    note_body,
    outcomes_body,
    show_note,
    show_transaction,
    sums_of,
    transaction_body,
)
from payments_ledger.ledger.transactions.transaction import Kind, NewTransaction, Status, Transaction
from payments_ledger.ledger.transactions.use_cases import (
    AtomicRefusal,
    PostHold,
    Recorded,
    RecordTransactions,
    ReverseTransaction,
    VoidHold,
    WriteNote,
    change_book,
    write_notes,
)
from payments_ledger.money import parse_number
from payments_ledger.process.portions import in_portions
from payments_ledger.validation.texts import Matching
from payments_ledger.web.metadata_filter import METADATA_PARAMETER, MetadataFilter
from payments_ledger.web.paging import Page, json_array
from payments_ledger.web.parameters import CanonicalUUID, Instant
from payments_ledger.web.problems import BODY_PROBLEMS, documented, problem_body, status_of
from payments_ledger.web.routes import Route, UpTo

PATH = "/v1/ledger/transactions"
# Room for 1,000 transactions of some postings each; metadata may take more, up to what a batch can carry.
BATCH_BYTES_MAX = 2 * 1024 * 1024
# The member of a batch's body that its items stand in.
ITEMS = "transactions"

router = APIRouter(prefix=PATH, tags=["ledger"], route_class=Route)

Reader = Annotated[Caller, Depends(caller_with(Permission.LEDGER_READ))]
Writer = Annotated[Caller, Depends(caller_with(Permission.LEDGER_WRITE))]
TransactionId = Annotated[CanonicalUUID, Path(description="The transaction", examples=[TRANSACTION_EXAMPLE["id"]])]
StatusText = Annotated[str, Matching("posted|pending|voided|expired", "must be posted, pending, voided or expired")]

READ_PROBLEMS = documented(*TENANT_PROBLEMS)
CHANGE_PROBLEMS = documented(*TENANT_PROBLEMS, HTTPStatus.CONFLICT)
BODY_CHANGE_PROBLEMS = CHANGE_PROBLEMS | documented(*BODY_PROBLEMS)

# Of a post without a body.
_ALL_OF_IT = PostRequest()


# ----------------------------------------------------------------------------------------------------------------------
# What can be asked for, and what the response to it shows


def _refusal(outcome: Rejected, instance: str, origin: Origin) -> StoredResponse:
    """As any refusal; that of a reference which is taken leads to the transaction that has it."""
    response = refusal(outcome, instance, origin)
    if isinstance(outcome.error, ReferenceTaken) and outcome.error.taken_by:
        return StoredResponse(response.status, response.body, location=_path(outcome.error.taken_by))
    return response


async def _render_one(recorded: Recorded, instance: str, origin: Origin) -> StoredResponse:
    return _response_to(recorded.command.transactions[0], recorded.outcomes[0], instance, origin)


async def _render_many(recorded: Recorded | AtomicRefusal, instance: str, origin: Origin) -> StoredResponse:
    if isinstance(recorded, AtomicRefusal):
        error = _placed(recorded.command, recorded.index, recorded.error)
        correlation_id = origin.trace.correlation_id
        body = problem_body(error, instance=instance, correlation_id=correlation_id, index=recorded.index)
        return StoredResponse(status_of(error), body)
    each = (
        _response_to(item, _at_its_place(recorded.command, place, outcome), instance, origin)
        for place, (item, outcome) in enumerate(zip(recorded.command.transactions, recorded.outcomes, strict=True))
    )
    return StoredResponse(HTTPStatus.OK, await outcomes_body((response.status, response.body) for response in each))


def _response_to(
    item: NewTransaction | Rejected, outcome: Transaction | Rejected, instance: str, origin: Origin
) -> StoredResponse:
    if isinstance(outcome, Rejected):
        return _refusal(outcome, instance, origin)
    if isinstance(item, NewTransaction) and item.is_dry_run:
        return StoredResponse(HTTPStatus.OK, dry_run_body(outcome))
    return StoredResponse(HTTPStatus.CREATED, transaction_body(outcome), location=_path(outcome.id))


def _at_its_place(command: RecordTransactions, place: int, outcome: Transaction | Rejected) -> Transaction | Rejected:
    return Rejected(_placed(command, place, outcome.error)) if isinstance(outcome, Rejected) else outcome


def _placed(command: RecordTransactions, place: int, error: LedgerError) -> LedgerError:
    """The use case does not know where in the request a transaction stood; one refused beforehand was placed then."""
    was_read = isinstance(command.transactions[place], NewTransaction)
    if was_read and isinstance(error, Invalid | ConditionFailed):
        return error.within(ITEMS, place)
    return error


# One use case for all of them: a batch then takes its locks once, in one order.
RECORD: Operation[Any, Any] = Operation(change_book, _render_one)
RECORD_MANY: Operation[Any, Any] = Operation(change_book, _render_many)
CHANGE: Operation[Any, Any] = Operation(change_book, rendering(transaction_body))
REVERSE: Operation[Any, Any] = Operation(
    change_book,
    rendering(transaction_body, HTTPStatus.CREATED, location=lambda reversal: _path(reversal.id)),
)
NOTE: Operation[WriteNote, Note | Rejected] = Operation(
    write_notes,
    rendering(note_body, HTTPStatus.CREATED, location=lambda note: f"{_path(note.transaction_id)}/notes"),
)


# ----------------------------------------------------------------------------------------------------------------------
# Recording


@router.post(
    "",
    summary="Record a transaction",
    status_code=HTTPStatus.CREATED,
    response_model=TransactionDocument,
    responses={
        HTTPStatus.OK: {"model": TransactionDocument, "description": "A dry run: nothing was recorded."},
        **BODY_CHANGE_PROBLEMS,
    },
)
async def record_transaction(caller: Writer, key: RequiredKey, body: TransactionRequest, resources: Shared) -> Response:
    """Posts the transaction, or holds what it would post. The Idempotency-Key is required.

    A `reference` is taken for ever: recording it again is refused, with the Location of the first.
    """
    transaction = body.transaction(uuid7())
    _require(caller, transaction)
    command = RecordTransactions(caller.tenant_id, (transaction,), caller.origin)
    return await RECORD.respond(
        resources,
        caller,
        command,
        path=PATH,
        key=key,
        asked_for=fingerprint(body.asked_for),
        commands=resources.ledger_commands,
    )


@router.post(
    "/batch",
    summary="Record many transactions",
    response_model=TransactionOutcomes,
    responses=BODY_CHANGE_PROBLEMS,
)
async def record_transactions(
    caller: Writer,
    key: RequiredKey,
    body: Annotated[TransactionBatch, UpTo(BATCH_BYTES_MAX)],
    request: Request,
    resources: Shared,
) -> Response:
    """Records up to 1,000 transactions, all or none (atomic) or each by itself. The Idempotency-Key is required.

    Each sees what those before it left. A refused atomic batch is the problem of the first that was refused, with its
    `index`, and none of its references is taken. It counts as one request.
    """
    items = in_portions(enumerate(body.transactions))
    read = [_item_of_batch(caller, place, item) async for place, item in items]
    transactions = tuple(item for _, item in read)
    if denial := _denial_among(transactions):
        # One row of the audit log for a request of which the policies deny some: the response itself is no 403.
        resources.refusals.note(request, denial)
    command = RecordTransactions(caller.tenant_id, transactions, caller.origin, is_atomic=body.mode == "atomic")
    return await RECORD_MANY.respond(
        resources,
        caller,
        command,
        path=f"{PATH}/batch",
        key=key,
        asked_for=fingerprint(body.mode, *(asked_for for asked_for, _ in read)),
        commands=resources.bulk_commands,
    )


@router.post(
    "/{transaction_id}/post",
    summary="Post a pending transaction",
    response_model=TransactionDocument,
    responses=BODY_CHANGE_PROBLEMS,
)
async def post_transaction(
    caller: Writer,
    key: RequiredKey,
    transaction_id: TransactionId,
    resources: Shared,
    body: PostRequest = _ALL_OF_IT,
) -> Response:
    """Posts what is held, or less of it; the rest is released. The Idempotency-Key is required."""
    await _require_for(resources, caller, transaction_id)
    amounts = tuple(body.amounts) if body.amounts is not None else None
    command = PostHold(caller.tenant_id, transaction_id, caller.origin, amounts)
    path = f"{_path(transaction_id)}/post"
    asked_for = fingerprint(str(transaction_id), *map(_plain, amounts or ()))
    return await CHANGE.respond(
        resources, caller, command, path=path, key=key, asked_for=asked_for, commands=resources.ledger_commands
    )


@router.post(
    "/{transaction_id}/void",
    summary="Void a pending transaction",
    response_model=TransactionDocument,
    responses=CHANGE_PROBLEMS,
)
async def void_transaction(
    caller: Writer, key: RequiredKey, transaction_id: TransactionId, resources: Shared
) -> Response:
    """Releases what is held. The Idempotency-Key is required."""
    command = VoidHold(caller.tenant_id, transaction_id, caller.origin)
    path = f"{_path(transaction_id)}/void"
    asked_for = fingerprint(str(transaction_id))
    return await CHANGE.respond(
        resources, caller, command, path=path, key=key, asked_for=asked_for, commands=resources.ledger_commands
    )


@router.post(
    "/{transaction_id}/reverse",
    summary="Reverse a transaction",
    status_code=HTTPStatus.CREATED,
    response_model=TransactionDocument,
    responses=BODY_CHANGE_PROBLEMS,
)
async def reverse_transaction(
    caller: Writer, key: RequiredKey, transaction_id: TransactionId, body: ReverseRequest, resources: Shared
) -> Response:
    """Records a new transaction that mirrors a posted one, which can be reversed once. The key is required."""
    await _require_for(resources, caller, transaction_id)
    command = ReverseTransaction(
        caller.tenant_id, transaction_id, uuid7(), body.effective_at, body.reason, caller.origin
    )
    path = f"{_path(transaction_id)}/reverse"
    asked_for = fingerprint(str(transaction_id), str(body.effective_at), json.dumps(body.reason))
    return await REVERSE.respond(
        resources, caller, command, path=path, key=key, asked_for=asked_for, commands=resources.ledger_commands
    )


# ----------------------------------------------------------------------------------------------------------------------
# Reading


def _transaction_filter(
    recorded: RequestedPeriod,
    metadata: MetadataFilter,
    effective_from: Annotated[Instant | None, Query(description="Inclusive; UTC without a zone")] = None,
    effective_to: Annotated[Instant | None, Query(description="Exclusive; UTC without a zone")] = None,
    account: Annotated[Code | None, Query(description="Only those that move this account")] = None,
    prefix: Annotated[Code | None, Query(description="A code: it and those below it, by whole dotted parts")] = None,
    reference: Annotated[Reference | None, Query(description="The one that has it")] = None,
    status: Annotated[StatusText | None, Query(description="posted, pending, voided or expired")] = None,
    kind: Annotated[Kind | None, Query(description="Only transactions, or only reversals")] = None,
) -> TransactionFilter:
    return TransactionFilter(
        recorded=recorded,
        effective=Period(effective_from, effective_to),
        account=account,
        prefix=prefix,
        reference=reference,
        status=Status(status.upper()) if status else None,
        kind=kind,
        metadata=metadata,
    )


@router.get(
    "",
    summary="List transactions",
    response_model=list[TransactionDocument],
    responses=READ_PROBLEMS,
    openapi_extra=METADATA_PARAMETER,
)
async def list_transactions(
    caller: Reader,
    wanted: Annotated[TransactionFilter, Depends(_transaction_filter)],
    page: Annotated[Page, Depends(page_of("transactions", is_filtered=True))],
    resources: Shared,
) -> Response:
    """The tenant's transactions, newest first; `from` and `to` are about when they were recorded."""
    async with resources.database.transaction([caller.tenant_id]) as conn:
        found = await queries.list_transactions(
            conn, caller.tenant_id, wanted, after=page.after, limit=page.rows_wanted
        )
    return await page.response(found, show_transaction, lambda each: (each.recorded_at, each.id))


@router.get(
    "/{transaction_id}",
    summary="Show a transaction",
    response_model=TransactionDocument,
    # 405 for "batch", which is a path of its own.
    responses=documented(*TENANT_PROBLEMS, HTTPStatus.METHOD_NOT_ALLOWED),
)
async def get_transaction(caller: Reader, transaction_id: TransactionId, resources: Shared) -> Response:
    """The transaction as it is now."""
    transaction = await _find(resources, caller, transaction_id)
    if transaction is None:
        raise TransactionNotFound
    return Response(transaction_body(transaction), media_type="application/json")


@router.post(
    "/{transaction_id}/notes",
    summary="Write a note",
    status_code=HTTPStatus.CREATED,
    response_model=NoteDocument,
    responses=BODY_CHANGE_PROBLEMS,
)
async def write_note(
    caller: Writer, key: RequiredKey, transaction_id: TransactionId, body: NoteRequest, resources: Shared
) -> Response:
    """Adds what must be said later on: facts never change. The Idempotency-Key is required."""
    command = WriteNote(caller.tenant_id, transaction_id, uuid7(), body.text, caller.origin)
    path = f"{_path(transaction_id)}/notes"
    return await NOTE.respond(
        resources,
        caller,
        command,
        path=path,
        key=key,
        asked_for=fingerprint(body.text),
        commands=resources.ledger_commands,
    )


@router.get(
    "/{transaction_id}/notes",
    summary="List the notes of a transaction",
    response_model=list[NoteDocument],
    responses=READ_PROBLEMS,
)
async def list_notes(caller: Reader, transaction_id: TransactionId, resources: Shared) -> Response:
    """The notes in the order in which they were written."""
    async with resources.database.transaction([caller.tenant_id]) as conn:
        existing = await queries.find_existing(conn, [(caller.tenant_id, transaction_id)])
        notes = await queries.list_notes(conn, caller.tenant_id, transaction_id)
    if not existing:
        raise TransactionNotFound
    return await json_array(map(show_note, notes))


async def _find(resources: Resources, caller: Caller, transaction_id: UUID) -> Transaction | None:
    async with resources.database.transaction([caller.tenant_id]) as conn:
        found = await queries.find_transactions(conn, caller.tenant_id, [transaction_id])
    return found[0] if found else None


def _require(caller: Caller, transaction: NewTransaction | Transaction) -> None:
    """Raises PolicyDenied unless the policies allow what it debits, in each of its currencies."""
    for money in sums_of(transaction.postings):
        caller.require(Permission.LEDGER_WRITE, money)


async def _require_for(resources: Resources, caller: Caller, transaction_id: UUID) -> None:
    """As `_require`, of a transaction that exists: what it moves never grows, so it can be asked before the batch."""
    if caller.is_bound_by_amounts and (transaction := await _find(resources, caller, transaction_id)):
        _require(caller, transaction)


def _item_of_batch(caller: Caller, place: int, item: Any) -> tuple[str, NewTransaction | Rejected]:
    """What one transaction of many asks for, as text, and the transaction to record, or why there is none.

    The text depends on the item alone: what policies say of it may be different when the request is repeated.
    """
    try:
        body = TransactionRequest.read(item)
    except Invalid as error:
        return json.dumps(item, sort_keys=True, default=str), Rejected(error.within(ITEMS, place))
    transaction = body.transaction(uuid7())
    try:
        _require(caller, transaction)
    except Forbidden as error:
        return body.asked_for, Rejected(error)
    return body.asked_for, transaction


def _denial_among(transactions: Sequence[NewTransaction | Rejected]) -> Forbidden | None:
    errors = (item.error for item in transactions if isinstance(item, Rejected))
    return next((error for error in errors if isinstance(error, Forbidden)), None)


def _plain(amount: Any) -> str:
    """An amount as text that is the same for 80, 80.0 and "80.00"."""
    try:
        return f"{parse_number(amount).normalize():f}"
    except InvalidAmount:
        return str(amount)


def _path(transaction_id: UUID) -> str:
    return f"{PATH}/{transaction_id}"
