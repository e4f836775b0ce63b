-- Tenants: the same as on Postgres. The column `uploads.tenant` is there since 0005. One process at
-- a time uses this file, so no previous version runs beside this one.

-- The id in the API. NULL if it is `id`. The two differ only if another tenant had chosen the same
-- id before.
ALTER TABLE uploads ADD COLUMN public_id text;
-- The id of the key that sent the upload. NULL without authentication.
ALTER TABLE uploads ADD COLUMN created_by text;
CREATE UNIQUE INDEX uploads_by_public_id ON uploads (tenant, coalesce(public_id, id));

-- The same content sent before: the same as on Postgres. SQLite would otherwise find the uploads of
-- a tenant by `uploads_by_public_id`, and read all of them.
DROP INDEX uploads_by_content;
CREATE INDEX uploads_by_content ON uploads (sha256, tenant) WHERE sha256 IS NOT NULL;

-- The lists of one tenant. `id` is the primary key, so it needs no unique index together with the
-- tenant.
DROP INDEX uploads_by_tenant;
CREATE INDEX uploads_by_tenant ON uploads (tenant, created_at DESC, id DESC);
DROP INDEX uploads_by_dataset;
CREATE INDEX uploads_by_dataset ON uploads (tenant, dataset ->> 'name', created_at DESC, id DESC)
    WHERE dataset IS NOT NULL;

-- The view has the rows of all tenants, so it says whose they are.
DROP VIEW upload_rows;
CREATE VIEW upload_rows AS
SELECT u.id AS upload_id, r.row_number,
       (SELECT json_group_object(c.value, r.fields ->> c.key) FROM json_each(u.columns) c) AS data,
       u.tenant
FROM uploads u
JOIN rows r ON r.id BETWEEN u.number << 36 AND (u.number << 36) + 0xfffffffff
WHERE u.status IN ('completed', 'partial') AND u.expired_at IS NULL AND u.dataset IS NULL;

-- SQLite cannot change a primary key, so the table is made again. The table is not renamed, because
-- SQLite would then refuse the whole migration for any faulty view that somebody has made. The copy
-- is a temporary table, so that no table of this file can have its name already.
--
-- The table of dataset `sales` of tenant `acme` is "datasets_acme/sales", and its view is
-- "datasets_acme/sales_rows". Those of the tenant `default` are "datasets_sales" and
-- "datasets_sales_rows".
CREATE TEMP TABLE former_datasets AS SELECT * FROM datasets;
DROP TABLE datasets;
CREATE TABLE datasets (
    tenant          text NOT NULL DEFAULT 'default',
    name            text NOT NULL,
    -- The definition as JSON.
    definition      text NOT NULL,
    created_at      text NOT NULL,
    updated_at      text NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
INSERT INTO datasets (name, definition, created_at, updated_at)
    SELECT name, definition, created_at, updated_at FROM temp.former_datasets;
DROP TABLE temp.former_datasets;
