"""What a caller has done: a command in a batch with others', once for its Idempotency-Key, and the response to it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Protocol

from fastapi import Header, Response

from payments_ledger.access.caller import Caller
from payments_ledger.access.resources import Resources
from payments_ledger.commit.audit import Origin
from payments_ledger.commit.group_commit import Command, GroupCommit, UseCase
from payments_ledger.commit.idempotency import KEY_LENGTH_MAX, Key, Keyed, StoredResponse, respond_once
from payments_ledger.errors import Rejected
from payments_ledger.validation.texts import Matching
from payments_ledger.web.problems import MEDIA_TYPE, problem_body, status_of

_KeyText = Annotated[
    str, Matching(f"[ -~]{{1,{KEY_LENGTH_MAX}}}", f"must be 1 to {KEY_LENGTH_MAX} printable ASCII characters")
]
_KEY = Header(
    alias="Idempotency-Key",
    description="A repetition under the same key gets the first response again",
    examples=["6b0f1e0c-confirm-1"],
)
RequiredKey = Annotated[_KeyText, _KEY]
OptionalKey = Annotated[_KeyText | None, _KEY]


class CallersCommand(Command, Protocol):
    """A command that says who asks for it."""

    @property
    def origin(self) -> Origin: ...


type Render[O] = Callable[[O, str, Origin], Awaitable[StoredResponse]]
"""The response to a command's outcome: of the request for that path, from that origin."""


def rendering[O](
    show: Callable[[O], bytes], status: HTTPStatus = HTTPStatus.OK, location: Callable[[O], str] | None = None
) -> Render[O | Rejected]:
    """Shows an outcome with `status`, and a refusal as its problem document."""

    async def render(outcome: O | Rejected, instance: str, origin: Origin) -> StoredResponse:
        if isinstance(outcome, Rejected):
            return refusal(outcome, instance, origin)
        return StoredResponse(status, show(outcome), location(outcome) if location else None)

    return render


def refusal(outcome: Rejected, instance: str, origin: Origin) -> StoredResponse:
    """The problem document of a refused command."""
    body = problem_body(outcome.error, instance=instance, correlation_id=origin.trace.correlation_id)
    return StoredResponse(status_of(outcome.error), body)


@dataclass(frozen=True, slots=True)
class Operation[C: CallersCommand, O]:
    """A use case as requests have it carried out."""

    use_case: UseCase[C, O]
    render: Render[O]

    def keyed(self, command: C, path: str, key: Key | None) -> Keyed[C, O]:
        """The command as `respond_once` takes it."""
        return Keyed(self.use_case, lambda _, outcome: self.render(outcome, path, command.origin), command, key)

    async def respond(
        self,
        resources: Resources,
        caller: Caller,
        command: C,
        *,
        path: str,
        key: str | None = None,
        asked_for: bytes = b"",
        commands: GroupCommit | None = None,
    ) -> Response:
        """Has the command carried out, and responds to the request for `path`.

        `path` is the canonical one, so that a key counts for a resource, however its URL is spelled; `asked_for` is the
        fingerprint of the request. Raises what keeps the command from being carried out.
        """
        stored_under = _key(resources, caller, path, key, asked_for) if key is not None else None
        request: Keyed[Any, Any] = self.keyed(command, path, stored_under)
        stored = await (commands or resources.commands).submit(respond_once, request)
        if isinstance(stored, Rejected):
            raise stored.error
        headers = {"Idempotent-Replayed": "true"} if stored.replayed else {}
        if stored.location:
            headers["Location"] = stored.location
        media_type = "application/json" if stored.status < HTTPStatus.BAD_REQUEST else MEDIA_TYPE
        return Response(stored.body, stored.status, headers, media_type)


def _key(resources: Resources, caller: Caller, path: str, key: str, asked_for: bytes) -> Key:
    lifetime_seconds = resources.settings.idempotency_ttl_seconds
    return Key(caller.tenant_id, caller.identity.subject, f"POST {path}", key, asked_for, lifetime_seconds)
