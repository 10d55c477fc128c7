-- What is asked of one person, found without a scan.

CREATE INDEX invites_by_customer ON invites (customer_id, expires_at);
