-- Dead letters can be retried, and no longer fail their upload.

-- Later statements on `uploads` wait behind this migration, so it fails rather than wait for a long
-- query. The program then ends with an error, and its supervisor starts it again.
SET LOCAL lock_timeout = '5s';

-- The rows of dead letters, once the upload has ended.
ALTER TABLE uploads ADD COLUMN rows_dead bigint;

-- A batch is a dead letter while `retried_at` is NULL. A retry sets it. Then a process publishes the
-- message, and sets `published_at`; `claimed_at` keeps other processes from doing the same. All
-- three are NULL again if the batch fails again. `first_row`, `last_row` and `rows` are NULL if the
-- message cannot be decoded.
ALTER TABLE parked_batches
    ADD COLUMN first_row    bigint,
    ADD COLUMN last_row     bigint,
    ADD COLUMN rows         integer,
    ADD COLUMN retried_at   timestamptz,
    ADD COLUMN claimed_at   timestamptz,
    ADD COLUMN published_at timestamptz;
CREATE INDEX parked_batches_to_publish ON parked_batches (id)
    WHERE retried_at IS NOT NULL AND published_at IS NULL;

-- The parked batches whose rows are not stored. `is_missing`: whether the batch is one of those that
-- its upload needs. The seal of an upload says how many batches it has, so a message that another
-- program made may be none of them.
CREATE VIEW dead_letters AS
SELECT p.id, p.upload_id, p.epoch, p.seq, p.first_row, p.last_row, p.rows, p.attempts, p.reason,
       p.parked_at, p.retried_at, p.claimed_at, p.published_at,
       (p.epoch = u.epoch AND p.seq BETWEEN 1 AND coalesce(u.batches_total, p.seq)) IS TRUE AS is_missing
FROM parked_batches p
LEFT JOIN uploads u ON u.id = p.upload_id
WHERE NOT EXISTS (SELECT 1 FROM batches b
                  WHERE b.upload_id = p.upload_id AND b.epoch = p.epoch AND b.seq = p.seq)
  -- Previous versions keep the messages of uploads that keep no rows.
  AND (u.id IS NULL OR u.status NOT IN ('failed', 'cancelled', 'undone') AND u.expired_at IS NULL);

-- Previous versions fail the upload of a dead letter, and run beside this one during an upgrade.
-- The update fails instead. Their dead letter returns to the queue, until a process of this version
-- takes it.
CREATE FUNCTION keep_upload_with_dead_letters() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'upload % has a dead letter, which can be retried', NEW.id
        USING HINT = 'Nothing is lost. A newer version of Carga keeps this upload.';
END
$$;
CREATE TRIGGER keep_upload_with_dead_letters BEFORE UPDATE OF status ON uploads
    FOR EACH ROW WHEN (NEW.status = 'failed' AND OLD.status <> 'failed'
        AND NEW.failure ->> 'code' = 'batch_dead')
    EXECUTE FUNCTION keep_upload_with_dead_letters();
