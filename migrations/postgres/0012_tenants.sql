-- Tenants: uploads and datasets belong to a tenant, and other tenants do not see them. The column
-- `uploads.tenant` is there since 0005.
--
-- Previous versions know only the tenant `default`, and run beside this one during an upgrade. They
-- go on with all work of this tenant, with two exceptions: they cannot put a dataset, since its
-- name alone is no longer a key, and they find the uploads of a dataset slowly. They do not tell
-- tenants apart, and their API shows every upload to everybody. So no other tenant may send
-- anything before every process is of this version. If another tenant does, the triggers below
-- protect the rows in its tables.

-- Later statements on `uploads` wait behind this migration, so it fails rather than wait for a long
-- query. The program then ends with an error, and its supervisor starts it again.
SET LOCAL lock_timeout = '5s';

-- The view has the rows of all tenants, so it says whose they are. It is changed first, because its
-- readers lock the view before `uploads`. In another order, the two could deadlock.
CREATE OR REPLACE VIEW upload_rows AS
SELECT u.id AS upload_id, r.row_number, jsonb_object(u.columns, r.fields) AS data, u.tenant
FROM landing r
JOIN uploads u ON u.number = r.upload
WHERE u.status IN ('completed', 'partial') AND u.expired_at IS NULL AND u.dataset IS NULL
UNION ALL
SELECT r.upload_id, r.row_number, jsonb_object(u.columns, r.fields) AS data, u.tenant
FROM rows r
JOIN uploads u ON u.id = r.upload_id
WHERE u.status IN ('completed', 'partial') AND u.expired_at IS NULL AND u.dataset IS NULL;

-- `datasets` is changed before `uploads`, because the creation of an upload reads `datasets` first.
-- So these two cannot deadlock. A merge into a table of the user reads `uploads` first, so it can
-- deadlock with this migration. After a second, Postgres ends one of the two. If it ends the merge,
-- a worker merges the upload again. If it ends the migration, the program ends with an error, and
-- its supervisor starts it again.
--
-- The tables of the tenant `default` are in the schema `datasets`. Those of another tenant are in
-- the schema `datasets_` with the name of the tenant, which Carga makes with the first table.
ALTER TABLE datasets
    ADD COLUMN tenant       text COLLATE "C" NOT NULL DEFAULT 'default',
    DROP CONSTRAINT datasets_pkey,
    ADD PRIMARY KEY (tenant, name);

-- `public_id`: the id in the API. NULL if it is `id`, so that no row is rewritten. The two differ
-- only if another tenant had chosen the same id before.
-- `created_by`: the id of the key that sent the upload; NULL without authentication.
-- `id` is the primary key, so it needs no unique index together with the tenant.
ALTER TABLE uploads
    ADD COLUMN public_id    uuid,
    ADD COLUMN created_by   text,
    DROP CONSTRAINT uploads_tenant_id_key;
CREATE UNIQUE INDEX uploads_by_public_id ON uploads (tenant, (coalesce(public_id, id)));

-- The same content sent before. A look-up by content compares the tenant too, and the one that
-- reserves a content compares other statuses than those of the former index. The digest comes
-- first, because previous versions compare it without the tenant.
DROP INDEX uploads_by_content;
CREATE INDEX uploads_by_content ON uploads (sha256, tenant) WHERE sha256 IS NOT NULL;

-- The lists of one tenant. Previous versions list uploads by `uploads_by_creation`, and lists of
-- all tenants need it too.
CREATE INDEX uploads_by_tenant ON uploads (tenant, created_at DESC, id DESC);
DROP INDEX uploads_by_dataset;
CREATE INDEX uploads_by_dataset ON uploads (tenant, (dataset ->> 'name'), created_at DESC, id DESC)
    WHERE dataset IS NOT NULL;

-- The trigger of 0011 looked for the dataset by its name alone.
CREATE OR REPLACE FUNCTION keep_table_of_user() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM datasets
               WHERE tenant = NEW.tenant AND name = NEW.dataset ->> 'name'
                 AND definition ->> 'table' IS NOT NULL) THEN
        RAISE EXCEPTION 'dataset % has a table that this version does not write into',
            NEW.dataset ->> 'name'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Send the file again when all APIs are of the newer version.';
    END IF;
    RETURN NEW;
END
$$;

-- Previous versions would look for the table of another tenant's dataset in the schema `datasets`.
-- Sessions of this version have the setting `carga.tenants`. For other tenants than `default`, a
-- session without it cannot
--
-- - complete or undo an upload whose rows are merged, or fail it with `merge_failed`,
-- - enter a batch in the ledger whose rows are in the table of a dataset,
-- - record that such rows are removed,
-- - delete a dataset.
--
-- Every other statement of a previous version leaves the rows in tables of other tenants as they
-- are.
CREATE FUNCTION keep_upload_of_tenant() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'upload % is of tenant %, so this version cannot set its status to %',
        OLD.id, OLD.tenant, NEW.status
        USING HINT = 'Nothing is lost. A newer version of Carga merges or undoes this upload. '
            'In psql, run SET carga.tenants = ''on'' first.';
END
$$;
CREATE TRIGGER keep_upload_of_tenant BEFORE UPDATE OF status ON uploads
    FOR EACH ROW
    WHEN (OLD.tenant <> 'default' AND OLD.dataset ->> 'merge' IS NOT NULL
          AND (NEW.status IN ('completed', 'partial', 'undone')
               OR NEW.status = 'failed' AND NEW.failure ->> 'code' = 'merge_failed')
          AND current_setting('carga.tenants', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION keep_upload_of_tenant();

CREATE FUNCTION keep_batch_of_tenant() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM uploads WHERE id = NEW.upload_id AND tenant <> 'default') THEN
        RAISE EXCEPTION 'the rows of batch %/% are those of a tenant that this version does not know',
            NEW.upload_id, NEW.seq
            USING HINT = 'Replace the older workers. One that cannot store these rows makes the '
                'batch a dead letter after its last attempt, and the upload fails. '
                'In psql, run SET carga.tenants = ''on'' first.';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER keep_new_batch_of_tenant BEFORE INSERT ON batches
    FOR EACH ROW
    WHEN (NEW.dataset AND current_setting('carga.tenants', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION keep_batch_of_tenant();
CREATE TRIGGER keep_batch_of_tenant BEFORE UPDATE OF dataset ON batches
    FOR EACH ROW
    WHEN (OLD.dataset AND NOT NEW.dataset
          AND current_setting('carga.tenants', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION keep_batch_of_tenant();

-- Previous versions delete a dataset by its name alone.
CREATE FUNCTION keep_dataset_of_tenant() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'dataset % is of tenant %, so this version cannot delete it',
        OLD.name, OLD.tenant
        USING HINT = 'Delete the dataset when all APIs are of the newer version. '
            'In psql, run SET carga.tenants = ''on'' first.';
END
$$;
CREATE TRIGGER keep_dataset_of_tenant BEFORE DELETE ON datasets
    FOR EACH ROW
    WHEN (OLD.tenant <> 'default'
          AND current_setting('carga.tenants', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION keep_dataset_of_tenant();

-- Postgres has no statistics of an expression before it analyzes an index on it. Without them, it
-- may read all uploads of a tenant to find one by its public id.
ANALYZE uploads;
