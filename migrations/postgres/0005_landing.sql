-- A landing table with one partition per week, in which rows are found by the number of their
-- upload; and the record of uploads whose rows were kept long enough.

-- Later statements on `uploads` wait behind this migration, so it fails rather than wait for a long
-- query. The program then ends with an error, and its supervisor starts it again.
SET LOCAL lock_timeout = '5s';

-- Weeks are counted from 1970-01-01 UTC, a Thursday.
CREATE FUNCTION upload_week(created_at timestamptz) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT floor(extract(epoch FROM created_at) / 604800)::bigint
$$;

-- A number is `week << 40 | counter`. Numbers ascend in time, so rows that are stored together have
-- numbers that are close together. The ids that clients choose are random, and with them a block
-- range index reads half of the table for one small upload.
--
-- `id` stays the primary key for one release: the previous version does not know tenants.
CREATE SEQUENCE upload_numbers MAXVALUE 1099511627775;
ALTER TABLE uploads
    ADD COLUMN tenant       text NOT NULL DEFAULT 'default',
    ADD COLUMN number       bigint,
    ADD COLUMN expired_at   timestamptz;
UPDATE uploads u
SET number = (upload_week(u.created_at) << 40) | o.counter
FROM (SELECT id, row_number() OVER (ORDER BY created_at, id) AS counter FROM uploads) o
WHERE o.id = u.id;
SELECT setval('upload_numbers', count(*) + 1, false) FROM uploads;
-- A default, because the previous version inserts uploads without a number.
ALTER TABLE uploads
    ALTER COLUMN number SET DEFAULT ((upload_week(now()) << 40) | nextval('upload_numbers')),
    ALTER COLUMN number SET NOT NULL,
    ADD UNIQUE (number),
    ADD UNIQUE (tenant, id);
ALTER SEQUENCE upload_numbers OWNED BY uploads.number;
CREATE INDEX uploads_to_expire ON uploads (finished_at)
    WHERE status IN ('completed', 'partial') AND expired_at IS NULL;
CREATE INDEX uploads_by_status ON uploads (status, created_at DESC, id DESC);

-- Whether the rows of a batch are in `landing`. The previous version stores them in `rows`, and
-- runs beside this one during an upgrade. The release after this one moves these rows.
ALTER TABLE batches ADD COLUMN landing boolean NOT NULL DEFAULT false;

-- The landing table. `upload` is the number of the upload. Cells are text, in the order of the
-- upload's columns; a NULL cell is not an empty one.
CREATE TABLE landing (
    upload          bigint NOT NULL,
    row_number      bigint NOT NULL,
    fields          text[] NOT NULL
) PARTITION BY RANGE (upload);
-- Several values per block range, because a worker stores uploads of different ages side by side.
CREATE INDEX landing_by_number ON landing
    USING brin (upload int8_minmax_multi_ops, row_number)
    WITH (pages_per_range = 32, autosummarize = on);
-- The rows of weeks that have no partition, so that every row can be stored.
CREATE TABLE landing_rest PARTITION OF landing DEFAULT
    WITH (autovacuum_vacuum_insert_scale_factor = 0.005);

-- The name of the partition of a week.
CREATE FUNCTION landing_week(week bigint) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT 'landing_' || to_char(timestamp '1970-01-01' + week * interval '7 days', 'YYYYMMDD')
$$;

-- Makes the partition of a week if it is missing. ATTACH, unlike PARTITION OF, does not wait for
-- transactions that store rows in other partitions. It reads all of `landing_rest` and blocks it
-- meanwhile, so a large one must be emptied by hand first.
CREATE FUNCTION add_landing_week(week bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    week_name text := landing_week(week);
BEGIN
    IF to_regclass(week_name) IS NOT NULL THEN
        RETURN;
    END IF;
    IF pg_relation_size('landing_rest') > 256 * 1024 * 1024 THEN
        RAISE WARNING '"landing_rest" has more than 256 MiB, so partition "%" is not made', week_name
            USING HINT = 'Nothing is lost. Run a worker at least once a week, or as the owner: SELECT add_landing_week(...).';
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM landing_rest WHERE upload >= week << 40 AND upload < (week + 1) << 40) THEN
        RAISE WARNING 'rows of the week of "%" are in "landing_rest", so this partition is not made', week_name
            USING HINT = 'Nothing is lost. Let a worker run at least once a week.';
        RETURN;
    END IF;
    EXECUTE format(
        'CREATE TABLE %I (LIKE landing) WITH (autovacuum_vacuum_insert_scale_factor = 0.005)',
        week_name);
    EXECUTE format(
        'ALTER TABLE landing ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
        week_name, week << 40, (week + 1) << 40);
END
$$;
SELECT add_landing_week(upload_week(now()) + ahead) FROM generate_series(0, 1) AS ahead;

CREATE OR REPLACE VIEW upload_rows AS
SELECT u.id AS upload_id, r.row_number, jsonb_object(u.columns, r.fields) AS data
FROM landing r
JOIN uploads u ON u.number = r.upload
WHERE u.status IN ('completed', 'partial') AND u.expired_at IS NULL
UNION ALL
SELECT r.upload_id, r.row_number, jsonb_object(u.columns, r.fields) AS data
FROM rows r
JOIN uploads u ON u.id = r.upload_id
WHERE u.status IN ('completed', 'partial') AND u.expired_at IS NULL;

-- The previous version removes rows from `rows` only, then deletes the whole ledger of the upload
-- and records that no row is left. The first trigger keeps ledger entries whose rows are in
-- `landing`. The second keeps the upload listed while there are such entries. This version removes
-- the rows, then clears `landing` in an entry, then deletes the entry. The release that drops
-- `rows` drops both triggers.
CREATE FUNCTION keep_entry_of_landing() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RETURN NULL;
END
$$;
CREATE TRIGGER keep_entry_of_landing BEFORE DELETE ON batches
    FOR EACH ROW WHEN (OLD.landing) EXECUTE FUNCTION keep_entry_of_landing();

CREATE FUNCTION keep_cleanup_pending() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.cleanup_pending := EXISTS (SELECT FROM batches WHERE upload_id = NEW.id AND landing);
    RETURN NEW;
END
$$;
CREATE TRIGGER keep_cleanup_pending BEFORE UPDATE OF cleanup_pending ON uploads
    FOR EACH ROW WHEN (OLD.cleanup_pending AND NOT NEW.cleanup_pending)
    EXECUTE FUNCTION keep_cleanup_pending();
