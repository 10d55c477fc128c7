-- Deliveries of one endpoint and subject form a lane; only its head, the first that waits, is due. The mark is kept with each end of a delivery,
-- so that whoever looks for what is due reads no row that is not.

ALTER TABLE deliveries ADD COLUMN head boolean NOT NULL DEFAULT true;

UPDATE deliveries d SET head = false
WHERE state = 'waiting' AND EXISTS
    (SELECT 1 FROM deliveries b WHERE b.state = 'waiting' AND b.endpoint_id = d.endpoint_id
     AND b.subject = d.subject AND b.position < d.position);

DROP INDEX deliveries_due;
CREATE INDEX deliveries_heads ON deliveries (endpoint_id, next_at, position) WHERE state = 'waiting' AND head;
CREATE INDEX deliveries_waiting ON deliveries (position) WHERE state = 'waiting';
CREATE INDEX deliveries_dead ON deliveries (endpoint_id, position) WHERE state = 'dead';
