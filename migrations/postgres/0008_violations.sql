-- Rows that violate a constraint of a dataset's table. They are rejected in the transaction that
-- stores the other rows of their batch.

-- Later statements on `uploads` wait behind this migration, so it fails rather than wait for a long
-- query. The program then ends with an error, and its supervisor starts it again.
SET LOCAL lock_timeout = '5s';

-- The tables are changed in the order in which a transaction that stores batches reads them.
-- Otherwise the two could deadlock.

-- The sum of `batches.rejected`, once the upload has ended. `rows_rejected` counts the rows that
-- the intake rejected.
ALTER TABLE uploads ADD COLUMN rows_violating bigint;

-- How many rows of the batch are rejected. `rows` counts them, too.
ALTER TABLE batches ADD COLUMN rejected integer NOT NULL DEFAULT 0;

-- The constraint that the row violates.
ALTER TABLE rejected_rows ADD COLUMN constraint_name text;

-- Previous versions do not know these counts, and run beside this one during an upgrade. To them,
-- the rows of an upload with violating rows do not add up, so they would fail it and remove its
-- rows. The update fails instead, and a process of this version completes the upload. This version
-- sets `rows_violating` whenever an upload fails.
CREATE FUNCTION keep_upload_with_violations() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM batches WHERE upload_id = NEW.id AND rejected > 0) THEN
        RAISE EXCEPTION 'rows of upload % violate constraints of a table', NEW.id
            USING HINT = 'Nothing is lost. A newer version of Carga completes this upload.';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER keep_upload_with_violations BEFORE UPDATE OF status ON uploads
    FOR EACH ROW WHEN (NEW.status = 'failed' AND OLD.status <> 'failed'
        AND NEW.failure ->> 'code' = 'accounting_mismatch' AND NEW.rows_violating IS NULL)
    EXECUTE FUNCTION keep_upload_with_violations();
