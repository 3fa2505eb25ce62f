-- What the books rest on: the currencies in a table, order rows that stay, and what the auditor reads besides.

-- ---------------------------------------------------------------------------------------------------------------------
-- Currencies: how many decimal places an amount has is a fact of the books, not of a library's edition (ADR 39)

CREATE TABLE currencies (
    code        text     PRIMARY KEY CHECK (code ~ '^[A-Z]{3}$'),
    exponent    smallint NOT NULL CHECK (exponent BETWEEN 0 AND 8),
    valid_until date
);
COMMENT ON COLUMN currencies.exponent IS 'Decimal places of an amount in major units (ISO 4217): 2 for BRL, 0 for JPY.';
COMMENT ON COLUMN currencies.valid_until IS 'The last day (UTC) on which a payment can be created in it; NULL: no end is known.';

-- ISO 4217, list one of 2026-01-01, as the library iso4217 1.16 has it.
INSERT INTO currencies (code, exponent) VALUES
    ('AED', 2), ('AFN', 2), ('ALL', 2), ('AMD', 2), ('AOA', 2), ('ARS', 2), ('AUD', 2), ('AWG', 2), ('AZN', 2),
    ('BAM', 2), ('BBD', 2), ('BDT', 2), ('BHD', 3), ('BIF', 0), ('BMD', 2), ('BND', 2), ('BOB', 2), ('BOV', 2),
    ('BRL', 2), ('BSD', 2), ('BTN', 2), ('BWP', 2), ('BYN', 2), ('BZD', 2), ('CAD', 2), ('CDF', 2), ('CHE', 2),
    ('CHF', 2), ('CHW', 2), ('CLF', 4), ('CLP', 0), ('CNY', 2), ('COP', 2), ('COU', 2), ('CRC', 2), ('CUP', 2),
    ('CVE', 2), ('CZK', 2), ('DJF', 0), ('DKK', 2), ('DOP', 2), ('DZD', 2), ('EGP', 2), ('ERN', 2), ('ETB', 2),
    ('EUR', 2), ('FJD', 2), ('FKP', 2), ('GBP', 2), ('GEL', 2), ('GHS', 2), ('GIP', 2), ('GMD', 2), ('GNF', 0),
    ('GTQ', 2), ('GYD', 2), ('HKD', 2), ('HNL', 2), ('HTG', 2), ('HUF', 2), ('IDR', 2), ('ILS', 2), ('INR', 2),
    ('IQD', 3), ('IRR', 2), ('ISK', 0), ('JMD', 2), ('JOD', 3), ('JPY', 0), ('KES', 2), ('KGS', 2), ('KHR', 2),
    ('KMF', 0), ('KPW', 2), ('KRW', 0), ('KWD', 3), ('KYD', 2), ('KZT', 2), ('LAK', 2), ('LBP', 2), ('LKR', 2),
    ('LRD', 2), ('LSL', 2), ('LYD', 3), ('MAD', 2), ('MDL', 2), ('MGA', 2), ('MKD', 2), ('MMK', 2), ('MNT', 2),
    ('MOP', 2), ('MRU', 2), ('MUR', 2), ('MVR', 2), ('MWK', 2), ('MXN', 2), ('MXV', 2), ('MYR', 2), ('MZN', 2),
    ('NAD', 2), ('NGN', 2), ('NIO', 2), ('NOK', 2), ('NPR', 2), ('NZD', 2), ('OMR', 3), ('PAB', 2), ('PEN', 2),
    ('PGK', 2), ('PHP', 2), ('PKR', 2), ('PLN', 2), ('PYG', 0), ('QAR', 2), ('RON', 2), ('RSD', 2), ('RUB', 2),
    ('RWF', 0), ('SAR', 2), ('SBD', 2), ('SCR', 2), ('SDG', 2), ('SEK', 2), ('SGD', 2), ('SHP', 2), ('SLE', 2),
    ('SOS', 2), ('SRD', 2), ('SSP', 2), ('STN', 2), ('SVC', 2), ('SYP', 2), ('SZL', 2), ('THB', 2), ('TJS', 2),
    ('TMT', 2), ('TND', 3), ('TOP', 2), ('TRY', 2), ('TTD', 2), ('TWD', 2), ('TZS', 2), ('UAH', 2), ('UGX', 0),
    ('USD', 2), ('USN', 2), ('UYI', 0), ('UYU', 2), ('UYW', 4), ('UZS', 2), ('VED', 2), ('VES', 2), ('VND', 0),
    ('VUV', 0), ('WST', 2), ('XAD', 2), ('XAF', 0), ('XCD', 2), ('XCG', 2), ('XOF', 0), ('XPF', 0), ('YER', 2),
    ('ZAR', 2), ('ZMW', 2), ('ZWG', 2);

-- Withdrawn, with the places that lists one of 2018 to 2024 gave them.
INSERT INTO currencies (code, exponent, valid_until) VALUES
    ('ANG', 2, '2025-03-31'),
    ('BGN', 2, '2025-12-31'),
    ('CUC', 2, '2021-06-30'),
    ('HRK', 2, '2022-12-31'),
    ('SLL', 2, '2024-03-31'),
    ('ZWL', 2, '2024-08-31');

CREATE TRIGGER currencies_keep_their_exponent BEFORE UPDATE ON currencies FOR EACH ROW
    WHEN ((OLD.code, OLD.exponent) IS DISTINCT FROM (NEW.code, NEW.exponent))
    EXECUTE FUNCTION refuse('another exponent would rescale every amount that was ever written down');
CREATE TRIGGER currencies_stay BEFORE DELETE OR TRUNCATE ON currencies
    EXECUTE FUNCTION refuse('currencies are never deleted: set valid_until');

-- Currencies belong to no tenant: everybody reads them, and whoever is bound by row-level security, the owner included,
-- writes none. A migration that does lifts FORCE for its own transaction.
ALTER TABLE currencies ENABLE ROW LEVEL SECURITY;
ALTER TABLE currencies FORCE ROW LEVEL SECURITY;
CREATE POLICY everybody_reads ON currencies FOR SELECT USING (true);
GRANT SELECT ON currencies TO :runtime_role, :auditor_role;

-- One look for a whole batch. A foreign key would look for each row, and lock the one row that all payments share.
CREATE FUNCTION refuse_currencies_not_in_use() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    refused text := (
        SELECT added.currency
        FROM added
        LEFT JOIN currencies ON currencies.code = added.currency
        WHERE currencies.code IS NULL OR currencies.valid_until < (added.created_at AT TIME ZONE 'UTC')::date
        LIMIT 1);
BEGIN
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'restrict_violation',
            MESSAGE = format('no payment can be created in %s', refused),
            TABLE = TG_TABLE_NAME,
            CONSTRAINT = TG_NAME;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER payment_currency_is_in_use AFTER INSERT ON payment_intents
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION refuse_currencies_not_in_use();

-- ---------------------------------------------------------------------------------------------------------------------
-- Orders: a row that was deleted would let a cancelled order be paid

CREATE TRIGGER orders_stay BEFORE DELETE OR TRUNCATE ON orders
    EXECUTE FUNCTION refuse('orders are never deleted: one that was cancelled must stay so');

-- ---------------------------------------------------------------------------------------------------------------------
-- The auditor compares orders with their payments, and accounts with the catalogue

CREATE POLICY auditor_reads_all ON orders FOR SELECT TO :auditor_role USING (true);
CREATE POLICY auditor_reads_all ON accounts FOR SELECT TO :auditor_role USING (true);
GRANT SELECT ON orders, accounts TO :auditor_role;
