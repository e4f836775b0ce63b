-- Uploads whose rows are merged into an existing table of the user.

-- Later statements on `uploads` wait behind this migration, so it fails rather than wait for a long
-- query. The program then ends with an error, and its supervisor starts it again.
SET LOCAL lock_timeout = '5s';

-- The rows that merges wrote into tables of the user, so that an undo can take them back. `key` has
-- the texts of the primary key. `digest` covers the texts of the columns in
-- `uploads.written_columns`, and tells whether a row is still as the upload wrote it. `previous`
-- has the replaced values as in `previous_rows`, and is NULL for an inserted row.
CREATE TABLE written_rows (
    id              bigint GENERATED ALWAYS AS IDENTITY,
    upload          bigint NOT NULL,
    key             text[] NOT NULL,
    digest          bytea NOT NULL,
    previous        jsonb,
    PRIMARY KEY (upload, id)
);

-- Set when an upload into a table of the user ends: the columns that the digests cover, and those
-- of the primary key. Both are empty if the table has no primary key. `written_columns` also
-- becomes empty when the upload is undone, when its written rows are forgotten, or when its dataset
-- is deleted.
ALTER TABLE uploads
    ADD COLUMN written_columns  text[],
    ADD COLUMN written_key      text[];

-- Uploads for which something is kept that will be forgotten.
DROP INDEX uploads_to_forget;
CREATE INDEX uploads_to_forget ON uploads (finished_at)
    WHERE is_reversible AND rows_updated > 0 OR written_columns <> '{}';

-- Previous versions do not know tables of the user, and run beside this one during an upgrade. They
-- would merge the rows into a table in the schema `datasets`, and would undo the upload there. They
-- must not complete or undo such an upload, and must not fail it because that table is missing.
-- This version sets `written_columns` when an upload ends, and empties it when the upload is
-- undone.
CREATE FUNCTION keep_upload_of_user_table() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'upload % goes into table %, so this version cannot set its status to %',
        OLD.id, OLD.dataset ->> 'table', NEW.status
        USING HINT = 'Nothing is lost. A newer version of Carga merges or undoes this upload.';
END
$$;
CREATE TRIGGER keep_upload_of_user_table BEFORE UPDATE OF status ON uploads
    FOR EACH ROW
    WHEN (NEW.dataset ->> 'table' IS NOT NULL AND (
        NEW.status IN ('completed', 'partial') AND OLD.status = 'processing'
            AND NEW.written_columns IS NULL
        OR NEW.status = 'undone' AND NEW.written_columns <> '{}'
        OR NEW.status = 'failed' AND NEW.failure ->> 'code' = 'merge_failed'
            AND NEW.written_columns IS NULL))
    EXECUTE FUNCTION keep_upload_of_user_table();

-- Nor must they create uploads into such a dataset, because the record would not name the table.
-- Their API then answers that the server is not available.
CREATE FUNCTION keep_table_of_user() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM datasets
               WHERE name = NEW.dataset ->> 'name' AND definition ->> 'table' IS NOT NULL) THEN
        RAISE EXCEPTION 'dataset % has a table that this version does not write into',
            NEW.dataset ->> 'name'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Send the file again when all APIs are of the newer version.';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER keep_table_of_user BEFORE INSERT ON uploads
    FOR EACH ROW WHEN (NEW.dataset IS NOT NULL AND NEW.dataset ->> 'table' IS NULL)
    EXECUTE FUNCTION keep_table_of_user();
