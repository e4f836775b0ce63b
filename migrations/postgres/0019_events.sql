-- The events of uploads: each change of an upload's status leaves one, in the same transaction.

-- Later statements on `uploads` wait behind this migration, so it fails rather than wait for a long
-- query. The program then ends with an error, and its supervisor starts it again.
SET LOCAL lock_timeout = '5s';

CREATE TABLE upload_events (
    -- Ascends for the events of one upload in the order of its changes, because each change locks
    -- the row of the upload before its event gets a number. The numbers of different uploads become
    -- visible in another order, so no reader may go on after the highest number that it has seen.
    number          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The id by which a receiver knows the event again.
    id              uuid NOT NULL DEFAULT gen_random_uuid(),
    tenant          text COLLATE "C" NOT NULL,
    upload_id       uuid NOT NULL,
    -- The id of the upload in the API.
    public_id       uuid NOT NULL,
    -- As in `uploads`.
    created_by      text,
    epoch           integer NOT NULL,
    -- `upload.` and the new status.
    type            text NOT NULL,
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The figures of the rows that were known at that moment.
    rows            jsonb NOT NULL,
    -- The place in the list. Committed events get their positions later, so that positions become
    -- visible in their order.
    position        bigint,
    -- When the broker confirmed the event. NULL: not sent.
    sent_at         timestamptz,
    -- The time until which a worker is sending the event.
    claimed_until   timestamptz
);
CREATE UNIQUE INDEX upload_events_by_position ON upload_events (tenant, position);
CREATE INDEX upload_events_by_time ON upload_events (at);
-- What has no position or is not sent is always little.
CREATE INDEX upload_events_to_place ON upload_events (number) WHERE position IS NULL;
CREATE INDEX upload_events_to_send ON upload_events (number) WHERE sent_at IS NULL;
CREATE INDEX upload_events_to_send_by_upload ON upload_events (upload_id, number) WHERE sent_at IS NULL;

-- The last position. Its only row is locked while positions are given. Positions are never used
-- again, also when all events have been deleted.
CREATE TABLE upload_event_positions (
    last            bigint NOT NULL
);
INSERT INTO upload_event_positions VALUES (0);

-- A trigger, so that no statement changes a status without an event, and so that programs of the
-- previous version write events too. It has the rights of its owner: a role that may change uploads
-- needs none on the events for it.
--
-- The figures are those of the upload in the API. Those that are not known are NULL: while a file is
-- received all of them, and while its rows are stored the outcomes that the table decides.
CREATE FUNCTION record_upload_event() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    rejected    bigint := NEW.rows_rejected + coalesce(NEW.rows_violating, 0);
    inserted    bigint := coalesce(NEW.rows_inserted, 0);
    updated     bigint := coalesce(NEW.rows_updated, 0);
    duplicate   bigint := coalesce(NEW.rows_duplicate, 0);
    read        bigint := GREATEST(NEW.rows_read, inserted + updated + duplicate + rejected);
    figures     jsonb := '{}';
BEGIN
    CASE
        WHEN NEW.status = 'processing' THEN
            figures := jsonb_build_object('read', read, 'rejected', rejected);
        WHEN NEW.status IN ('completed', 'partial') THEN
            figures := jsonb_build_object(
                'read', read, 'inserted', inserted, 'updated', updated, 'duplicate', duplicate,
                'rejected', rejected, 'dead', read - inserted - updated - duplicate - rejected,
                'discarded', 0, 'pending', 0);
        WHEN NEW.status IN ('failed', 'cancelled', 'undone') THEN
            figures := jsonb_build_object(
                'read', GREATEST(NEW.rows_read, rejected), 'inserted', 0, 'updated', 0,
                'duplicate', 0, 'rejected', rejected, 'dead', 0,
                'discarded', GREATEST(NEW.rows_read, rejected) - rejected, 'pending', 0);
        ELSE
            NULL;
    END CASE;
    INSERT INTO upload_events (tenant, upload_id, public_id, created_by, epoch, type, rows)
    VALUES (NEW.tenant, NEW.id, coalesce(NEW.public_id, NEW.id), NEW.created_by, NEW.epoch,
            'upload.' || NEW.status, figures);
    RETURN NULL;
END
$$;
CREATE TRIGGER record_new_upload AFTER INSERT ON uploads
    FOR EACH ROW EXECUTE FUNCTION record_upload_event();
CREATE TRIGGER record_status AFTER UPDATE OF status ON uploads
    FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION record_upload_event();
