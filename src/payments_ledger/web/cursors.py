"""Page cursors: a position in a list, signed, so that a client can hand it back but not make one up."""

import base64
import binascii
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from uuid import UUID

from payments_ledger.errors import InvalidCursor

_SIGNATURE_BYTES = 12
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class CursorSigner:
    """Writes and reads cursors; `purpose` names the list and its tenant, so that a cursor fits nowhere else."""

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(b"payments-ledger cursor:" + secret.encode()).digest()

    def write(self, purpose: str, instant: datetime, row_id: UUID) -> str:
        """A URL-safe text of the position (instant, row_id)."""
        microseconds = (instant - _EPOCH) // timedelta(microseconds=1)
        position = microseconds.to_bytes(8, signed=True) + row_id.bytes
        return base64.urlsafe_b64encode(position + self._signature(purpose, position)).decode().rstrip("=")

    def read(self, purpose: str, cursor: str) -> tuple[datetime, UUID]:
        """The position; raises InvalidCursor for anything that `write` did not make for this purpose."""
        position = self._position(purpose, cursor)
        microseconds = int.from_bytes(position[:8], signed=True)
        return _EPOCH + timedelta(microseconds=microseconds), UUID(bytes=position[8:])

    def write_text(self, purpose: str, text: str) -> str:
        """As `write`, of the position of a list in the order of a text."""
        position = text.encode()
        return base64.urlsafe_b64encode(position + self._signature(purpose, position)).decode().rstrip("=")

    def read_text(self, purpose: str, cursor: str) -> str:
        """As `read`, of what `write_text` made."""
        return self._position(purpose, cursor).decode()

    def _position(self, purpose: str, cursor: str) -> bytes:
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise InvalidCursor from None
        position, signature = raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(purpose, position)):
            raise InvalidCursor
        return position

    def _signature(self, purpose: str, position: bytes) -> bytes:
        return hmac.digest(self._key, purpose.encode() + b"\0" + position, "sha256")[:_SIGNATURE_BYTES]
