-- Dead letters can be retried, and no longer fail their upload.

-- The rows of dead letters, once the upload has ended.
ALTER TABLE uploads ADD COLUMN rows_dead integer;

-- A batch is a dead letter while `retried_at` is NULL. A retry sets it. Then the message is
-- published, and `published_at` is set; `claimed_at` keeps it from being published twice at once.
-- All three are NULL again if the batch fails again. `first_row`, `last_row` and `rows` are NULL if
-- the message cannot be decoded.
ALTER TABLE parked_batches ADD COLUMN first_row integer;
ALTER TABLE parked_batches ADD COLUMN last_row integer;
ALTER TABLE parked_batches ADD COLUMN rows integer;
ALTER TABLE parked_batches ADD COLUMN retried_at text;
ALTER TABLE parked_batches ADD COLUMN claimed_at text;
ALTER TABLE parked_batches ADD COLUMN published_at text;
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
