-- Who wants more time in a call: relay services, slow speakers. Nothing is judged by it.

ALTER TABLE customers ADD COLUMN more_time INTEGER NOT NULL DEFAULT 0 CHECK (more_time IN (0, 1));
