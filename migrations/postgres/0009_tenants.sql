-- Whose data a row is, and what rules ask of a payment: what the payee sells, and where goods go.

ALTER TABLE customers ADD COLUMN tenant word NOT NULL DEFAULT 'default';
CREATE INDEX customers_by_tenant ON customers (tenant, id);
ALTER TABLE payees ADD COLUMN tenant word NOT NULL DEFAULT 'default';
CREATE INDEX payees_by_tenant ON payees (tenant, id);
ALTER TABLE payees ADD COLUMN category word; -- NULL: nobody said

-- The customer's and the payee's, which are the same.
ALTER TABLE requests ADD COLUMN tenant word NOT NULL DEFAULT 'default';
CREATE INDEX requests_by_tenant ON requests (tenant, id);
-- NULL: nothing is delivered; `nowhere`: goods, nobody said where to; else the vault's keyed digest of the address, in hex.
ALTER TABLE requests ADD COLUMN delivery word CHECK (delivery = 'nowhere' OR length(delivery) = 64);
