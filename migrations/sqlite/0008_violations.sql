-- Rows that violate a constraint of a dataset's table: the same as on Postgres.

-- How many rows of the batch are rejected. `rows` counts them, too.
ALTER TABLE batches ADD COLUMN rejected integer NOT NULL DEFAULT 0;

-- The sum of them, once the upload has ended. `rows_rejected` counts the rows that the intake
-- rejected.
ALTER TABLE uploads ADD COLUMN rows_violating integer;

-- The constraint that the row violates.
ALTER TABLE rejected_rows ADD COLUMN constraint_name text;
