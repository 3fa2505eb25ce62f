"""Limit (a): the routes of a payment with validation and token but no I/O, in plain FastAPI, pydantic and PyJWT.

It is fixed on purpose and imports nothing of the engine: it must not become faster when the engine does. It does what
any FastAPI service of this shape does before it has done anything, and is what the engine is measured against.
"""

import os
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

import jwt
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field

SECRET = os.environ.get("JWT_SECRET", "")
ISSUER = os.environ.get("JWT_ISSUER", "local-auth")

bearer = HTTPBearer()
app = FastAPI()


class NewPayment(BaseModel):
    amount: Annotated[Decimal, Field(gt=0, decimal_places=2)]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    customer_ref: Annotated[str, Field(min_length=1, max_length=128)]


class Payment(BaseModel):
    id: UUID
    amount: str
    currency: str
    status: Literal["CREATED", "AUTHORIZED"]
    customer_ref: str
    created_at: datetime
    updated_at: datetime


async def claims_of(
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)],
    tenant_id: Annotated[str, Header(alias="X-Tenant-Id")],
) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(credentials.credentials, SECRET, algorithms=["HS256"], issuer=ISSUER)
    except jwt.PyJWTError:
        raise HTTPException(401) from None
    if claims["tid"] != tenant_id or "payments:write" not in claims["perms"]:
        raise HTTPException(403)
    return claims


Claims = Annotated[dict[str, Any], Depends(claims_of)]
Key = Annotated[str, Header(alias="Idempotency-Key", max_length=255)]


@app.post("/v1/payment-intents", status_code=201, response_model=Payment)
async def create(body: NewPayment, _claims: Claims, _key: Key) -> Payment:
    now = datetime.now(UTC)
    return Payment(
        id=uuid4(),
        amount=f"{body.amount:.2f}",
        currency=body.currency,
        status="CREATED",
        customer_ref=body.customer_ref,
        created_at=now,
        updated_at=now,
    )


@app.post("/v1/payment-intents/{payment_id}/confirm", response_model=Payment)
async def confirm(payment_id: UUID, _claims: Claims, _key: Key) -> Payment:
    now = datetime.now(UTC)
    return Payment(
        id=payment_id,
        amount="100.00",
        currency="BRL",
        status="AUTHORIZED",
        customer_ref="CUST-001",
        created_at=now,
        updated_at=now,
    )
