-- Datasets: their definitions, the schema of their tables, and the uploads and ledger entries whose
-- rows are in these tables.

-- Later statements on `uploads` wait behind this migration, so it fails rather than wait for a long
-- query. The program then ends with an error, and its supervisor starts it again.
SET LOCAL lock_timeout = '5s';

-- The schema has one table and one view per dataset, which Carga creates when a dataset is put. A
-- role that lacks the privilege CREATE on the database cannot make the schema. The migration then
-- fails and changes nothing, because a put of a dataset would fail later in the same way. The owner
-- of the database either grants the privilege, or makes the schema beforehand:
-- CREATE SCHEMA datasets AUTHORIZATION the_role_of_carga.
-- CREATE SCHEMA IF NOT EXISTS needs the privilege even if the schema exists.
DO $$
BEGIN
    IF to_regnamespace('datasets') IS NULL THEN
        CREATE SCHEMA datasets;
    END IF;
END
$$;

-- The definitions. Their names are listed in the order of their bytes, as in the other databases.
CREATE TABLE datasets (
    name            text COLLATE "C" PRIMARY KEY,
    definition      jsonb NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);

-- The dataset of an upload with its columns, as they were when the upload was created.
ALTER TABLE uploads ADD COLUMN dataset jsonb;
CREATE INDEX uploads_by_dataset ON uploads ((dataset ->> 'name'), created_at DESC, id DESC)
    WHERE dataset IS NOT NULL;

-- Whether the rows of a batch are in the table of a dataset. They are then neither in `landing` nor
-- in `rows`.
ALTER TABLE batches ADD COLUMN dataset boolean NOT NULL DEFAULT false;

-- Previous versions do not know these tables, and run beside this one during an upgrade. They must
-- not delete a ledger entry of such rows, since the rows would then never be removed. The deletion
-- fails rather than skip the entry: the previous version repeats a step of a removal, without a
-- pause, while it finds entries. After an error, it waits for its next sweep. This version removes
-- the rows, then clears `dataset` in an entry, then deletes the entry.
CREATE FUNCTION keep_entry_of_dataset() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the rows of batch %/% are in the table of a dataset', OLD.upload_id, OLD.seq
        USING HINT = 'Nothing is lost. A newer version of Carga removes these rows.';
END
$$;
CREATE TRIGGER keep_entry_of_dataset BEFORE DELETE ON batches
    FOR EACH ROW WHEN (OLD.dataset) EXECUTE FUNCTION keep_entry_of_dataset();

-- The trigger of 0005 keeps an upload listed while its rows are in `landing`. It now does the same
-- while they are in the table of a dataset.
CREATE OR REPLACE FUNCTION keep_cleanup_pending() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.cleanup_pending := EXISTS (
        SELECT FROM batches WHERE upload_id = NEW.id AND (landing OR dataset));
    RETURN NEW;
END
$$;
