-- Uploads whose rows are merged into the table of their dataset at the end.

-- Later statements on `uploads` wait behind this migration, so it fails rather than wait for a long
-- query. The program then ends with an error, and its supervisor starts it again.
SET LOCAL lock_timeout = '5s';

-- How many rows of the batch replaced others, and how many changed nothing. `rows` counts them,
-- too.
ALTER TABLE batches
    ADD COLUMN updated      integer NOT NULL DEFAULT 0,
    ADD COLUMN duplicate    integer NOT NULL DEFAULT 0;

-- `rows_updated` and `rows_duplicate` are the sums of these counts, once a merged upload has ended.
-- `is_reversible`: an undo can still take back the changes. `undone`: the counts of the undo.
ALTER TABLE uploads
    ADD COLUMN rows_updated     bigint,
    ADD COLUMN rows_duplicate   bigint,
    ADD COLUMN is_reversible    boolean NOT NULL DEFAULT true,
    ADD COLUMN undone           jsonb;
CREATE INDEX uploads_to_forget ON uploads (finished_at) WHERE rows_updated > 0 AND is_reversible;

-- The rows that merges replaced, as they were before. `upload` and `row_number` identify the new
-- row, `previous_upload` and `previous_row` the replaced one. `row` has the text of every replaced
-- value by the name of its column, because the text of a value restores it exactly.
CREATE TABLE previous_rows (
    upload          bigint NOT NULL,
    row_number      bigint NOT NULL,
    previous_upload uuid NOT NULL,
    previous_row    bigint NOT NULL,
    row             jsonb NOT NULL,
    PRIMARY KEY (upload, row_number)
);
CREATE INDEX previous_rows_by_previous ON previous_rows (previous_upload, previous_row);

-- Staged rows are in `landing` until they are merged, and have one element more than the columns.
CREATE OR REPLACE VIEW upload_rows AS
SELECT u.id AS upload_id, r.row_number, jsonb_object(u.columns, r.fields) AS data
FROM landing r
JOIN uploads u ON u.number = r.upload
WHERE u.status IN ('completed', 'partial') AND u.expired_at IS NULL AND u.dataset IS NULL
UNION ALL
SELECT r.upload_id, r.row_number, jsonb_object(u.columns, r.fields) AS data
FROM rows r
JOIN uploads u ON u.id = r.upload_id
WHERE u.status IN ('completed', 'partial') AND u.expired_at IS NULL AND u.dataset IS NULL;

-- The rows of a merged upload stay in the table of its dataset when the upload expires, so the
-- views of datasets show them. A view that was changed by hand stays as it is.
DO $$
DECLARE
    dataset text;
BEGIN
    FOR dataset IN
        SELECT name FROM datasets
        WHERE to_regclass(format('datasets.%I', name)) IS NOT NULL
          AND to_regclass(format('datasets.%I', name || '_rows')) IS NOT NULL
    LOOP
        BEGIN
            EXECUTE format(
                'CREATE OR REPLACE VIEW datasets.%I AS
                 SELECT r.* FROM datasets.%I r JOIN uploads u ON u.id = r.upload_id
                 WHERE u.status IN (''completed'', ''partial'')
                   AND (u.expired_at IS NULL OR u.dataset ->> ''merge'' IS NOT NULL)',
                dataset || '_rows', dataset);
        EXCEPTION
            WHEN invalid_table_definition OR wrong_object_type OR insufficient_privilege THEN
                RAISE WARNING 'view "%_rows" was changed by hand, and hides rows of expired uploads', dataset;
        END;
    END LOOP;
END
$$;

-- Previous versions do not know merges, and run beside this one during an upgrade. They must not
-- complete an upload whose rows are still staged. Their sweep tries again until this version has
-- merged the rows. Only this version sets `rows_duplicate`.
CREATE FUNCTION keep_upload_unmerged() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the rows of upload % are not merged yet', OLD.id
        USING HINT = 'Nothing is lost. A newer version of Carga merges these rows.';
END
$$;
CREATE TRIGGER keep_upload_unmerged BEFORE UPDATE OF status ON uploads
    FOR EACH ROW
    WHEN (NEW.status IN ('completed', 'partial') AND OLD.status = 'processing'
          AND NEW.dataset ->> 'merge' IS NOT NULL AND NEW.rows_duplicate IS NULL)
    EXECUTE FUNCTION keep_upload_unmerged();

-- They must not store staged rows in the table of the dataset either. This version enters their
-- batches with `dataset` = false.
CREATE FUNCTION keep_rows_staged() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM uploads WHERE id = NEW.upload_id AND dataset ->> 'merge' IS NOT NULL) THEN
        RAISE EXCEPTION 'the rows of batch %/% are not merged yet', NEW.upload_id, NEW.seq
            USING HINT = 'Nothing is lost. A newer version of Carga stores and merges these rows.';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER keep_rows_staged BEFORE INSERT ON batches
    FOR EACH ROW WHEN (NEW.dataset) EXECUTE FUNCTION keep_rows_staged();
