-- The events of uploads: the same as on Postgres.
CREATE TABLE upload_events (
    -- Also the position in the list: SQLite has one writer, so numbers ascend in the order of the
    -- commits. No number is used twice, also after its event was deleted.
    number          integer PRIMARY KEY AUTOINCREMENT,
    -- The id by which a receiver knows the event again: a random UUID.
    id              text NOT NULL DEFAULT (
                        lower(hex(randomblob(4))) || '-' || lower(hex(randomblob(2)))
                        || '-4' || substr(lower(hex(randomblob(2))), 2)
                        || '-' || substr('89ab', 1 + (random() & 3), 1) || substr(lower(hex(randomblob(2))), 2)
                        || '-' || lower(hex(randomblob(6)))),
    tenant          text NOT NULL,
    upload_id       text NOT NULL,
    -- The id of the upload in the API.
    public_id       text NOT NULL,
    -- As in `uploads`.
    created_by      text,
    epoch           integer NOT NULL,
    -- `upload.` and the new status.
    type            text NOT NULL,
    -- SQLite's clock has milliseconds.
    at              text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z'),
    -- The figures of the rows that were known at that moment, as JSON.
    rows            text NOT NULL,
    -- When the broker confirmed the event. NULL: not sent. Without a broker, all are NULL.
    sent_at         text,
    -- The time until which a worker is sending the event.
    claimed_until   text
) STRICT;
CREATE INDEX upload_events_by_tenant ON upload_events (tenant, number);
CREATE INDEX upload_events_by_time ON upload_events (at);
CREATE INDEX upload_events_to_send ON upload_events (number) WHERE sent_at IS NULL;
CREATE INDEX upload_events_to_send_by_upload ON upload_events (upload_id, number) WHERE sent_at IS NULL;

-- Triggers, so that no statement changes a status without an event. The figures are those of the
-- upload in the API. Those that are not known are left out: while a file is received all of them,
-- and while its rows are stored the outcomes that the table decides.
CREATE TRIGGER record_new_upload AFTER INSERT ON uploads
BEGIN
    INSERT INTO upload_events (tenant, upload_id, public_id, created_by, epoch, type, rows)
    VALUES (NEW.tenant, NEW.id, coalesce(NEW.public_id, NEW.id), NEW.created_by, NEW.epoch,
            'upload.' || NEW.status, '{}');
END;

CREATE TRIGGER record_status AFTER UPDATE OF status ON uploads WHEN OLD.status <> NEW.status
BEGIN
    INSERT INTO upload_events (tenant, upload_id, public_id, created_by, epoch, type, rows)
    SELECT NEW.tenant, NEW.id, coalesce(NEW.public_id, NEW.id), NEW.created_by, NEW.epoch,
           'upload.' || NEW.status,
           CASE
               WHEN NEW.status = 'processing' THEN
                   json_object('read', max(NEW.rows_read, stored + rejected), 'rejected', rejected)
               WHEN NEW.status IN ('completed', 'partial') THEN
                   json_object(
                       'read', max(NEW.rows_read, stored + rejected),
                       'inserted', coalesce(NEW.rows_inserted, 0),
                       'updated', coalesce(NEW.rows_updated, 0),
                       'duplicate', coalesce(NEW.rows_duplicate, 0),
                       'rejected', rejected,
                       'dead', max(NEW.rows_read, stored + rejected) - stored - rejected,
                       'discarded', 0, 'pending', 0)
               WHEN NEW.status IN ('failed', 'cancelled', 'undone') THEN
                   json_object(
                       'read', max(NEW.rows_read, rejected), 'inserted', 0, 'updated', 0,
                       'duplicate', 0, 'rejected', rejected, 'dead', 0,
                       'discarded', max(NEW.rows_read, rejected) - rejected, 'pending', 0)
               ELSE '{}'
           END
    FROM (SELECT coalesce(NEW.rows_inserted, 0) + coalesce(NEW.rows_updated, 0)
                     + coalesce(NEW.rows_duplicate, 0) AS stored,
                 NEW.rows_rejected + coalesce(NEW.rows_violating, 0) AS rejected);
END;
