-- Uploads that are merged into the table of a dataset: the same as on Postgres. Their rows are in
-- `rows` until then, with one more element: the row's position in its file as JSON text.

-- The outcomes of the rows of a batch. The others were inserted or rejected.
ALTER TABLE batches ADD COLUMN updated integer NOT NULL DEFAULT 0;
ALTER TABLE batches ADD COLUMN duplicate integer NOT NULL DEFAULT 0;

-- The sums, once a merged upload has ended.
ALTER TABLE uploads ADD COLUMN rows_updated integer;
ALTER TABLE uploads ADD COLUMN rows_duplicate integer;
-- Whether `previous_rows` still has the rows that the upload replaced.
ALTER TABLE uploads ADD COLUMN is_reversible integer NOT NULL DEFAULT 1;
-- The counts of the undo of a merged upload, as JSON.
ALTER TABLE uploads ADD COLUMN undone text;
CREATE INDEX uploads_to_forget ON uploads (finished_at) WHERE rows_updated > 0 AND is_reversible;

-- The rows that merged uploads replaced. `id` identifies the new row, and `previous_id` the
-- replaced one.
CREATE TABLE previous_rows (
    id              integer PRIMARY KEY,
    upload          integer GENERATED ALWAYS AS (id >> 36) VIRTUAL,
    row_number      integer GENERATED ALWAYS AS (id & 0xfffffffff) VIRTUAL,
    previous_id     integer NOT NULL,
    previous_upload text NOT NULL,
    -- The values of the dataset's columns, as JSON that keeps the type of each value.
    cells           text NOT NULL
) STRICT;
CREATE INDEX previous_rows_by_previous ON previous_rows (previous_id);

-- Staged rows are not visible.
DROP VIEW upload_rows;
CREATE VIEW upload_rows AS
SELECT u.id AS upload_id, r.row_number,
       (SELECT json_group_object(c.value, r.fields ->> c.key) FROM json_each(u.columns) c) AS data
FROM uploads u
JOIN rows r ON r.id BETWEEN u.number << 36 AND (u.number << 36) + 0xfffffffff
WHERE u.status IN ('completed', 'partial') AND u.expired_at IS NULL AND u.dataset IS NULL;
