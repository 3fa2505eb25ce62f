-- Orders that pay themselves, and tenants that are kept in step with another service.

-- One row for each order that was heard of, confirmed or cancelled, in whichever order the two came. Whoever acts on an
-- order locks its row first; that is what keeps a confirmation and a cancellation of one order apart.
CREATE TABLE orders (
    tenant_id    text        NOT NULL REFERENCES tenants CHECK (tenant_id <> '*'),
    order_id     text        NOT NULL CHECK (char_length(order_id) BETWEEN 1 AND 122),
    cancelled_at timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, order_id)
);
COMMENT ON COLUMN orders.order_id IS 'Six characters less than a customer_ref may have, which is order:<order_id>.';

CREATE TRIGGER orders_stay_cancelled BEFORE UPDATE ON orders FOR EACH ROW
    WHEN (OLD.cancelled_at IS NOT NULL AND NEW.cancelled_at IS DISTINCT FROM OLD.cancelled_at)
    EXECUTE FUNCTION refuse('an order that was cancelled stays cancelled');

ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE orders FORCE ROW LEVEL SECURITY;
CREATE POLICY named_tenants ON orders USING (tenant_id = ANY ((SELECT visible_tenants())::text[]));

GRANT SELECT, INSERT, UPDATE (cancelled_at) ON orders TO :runtime_role;

-- A tenant is never deleted: its books stay.
ALTER TABLE tenants ADD COLUMN suspended_at timestamptz;

-- The worker adds and changes tenants as it hears of them, with the roles and accounts that every tenant begins with.
GRANT INSERT, UPDATE (name, plan, region, suspended_at) ON tenants TO :runtime_role;
GRANT INSERT ON roles, accounts TO :runtime_role;
