-- Deliveries of one endpoint and subject form a lane; only its head, the first that waits, is due. The mark is kept with each end of a delivery,
-- so that whoever looks for what is due reads no row that is not.

ALTER TABLE deliveries ADD COLUMN head INTEGER NOT NULL DEFAULT 1 CHECK (head IN (0, 1));

UPDATE deliveries SET head = 0
WHERE state = 'waiting' AND EXISTS
    (SELECT 1 FROM deliveries b WHERE b.state = 'waiting' AND b.endpoint_id = deliveries.endpoint_id
     AND b.subject = deliveries.subject AND b.position < deliveries.position);

DROP INDEX deliveries_due;
CREATE INDEX deliveries_heads ON deliveries (endpoint_id, next_at, position) WHERE state = 'waiting' AND head = 1;
CREATE INDEX deliveries_waiting ON deliveries (position) WHERE state = 'waiting';
CREATE INDEX deliveries_dead ON deliveries (endpoint_id, position) WHERE state = 'dead';
