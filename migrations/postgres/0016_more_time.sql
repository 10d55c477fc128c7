-- Who wants more time in a call: relay services, slow speakers. Nothing is judged by it.

ALTER TABLE customers ADD COLUMN more_time boolean NOT NULL DEFAULT false;
