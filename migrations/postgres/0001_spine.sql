-- Uploads, the ledger of their batches, and the landing table of their rows.

CREATE TABLE uploads (
    id              uuid PRIMARY KEY,
    epoch           integer NOT NULL DEFAULT 1,
    status          text NOT NULL CHECK (status IN
                        ('receiving', 'processing', 'completed', 'partial', 'failed', 'cancelled', 'undone')),
    filename        text,
    dialect         jsonb NOT NULL,
    columns         text[] NOT NULL,
    bytes_total     bigint,
    -- Final figures. While an upload is received they are in its lease, so that heartbeats never touch this row.
    bytes_received  bigint NOT NULL DEFAULT 0,
    rows_read       bigint NOT NULL DEFAULT 0,
    batches_total   integer,
    rows_inserted   bigint,
    sha256          bytea,
    failure         jsonb,
    cleanup_pending boolean NOT NULL DEFAULT false,
    archive_pending boolean NOT NULL DEFAULT false,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz
);
CREATE INDEX uploads_by_creation ON uploads (created_at DESC, id DESC);
-- What the sweeper looks for is always little.
CREATE INDEX uploads_unfinished ON uploads (id) WHERE status IN ('receiving', 'processing');
CREATE INDEX uploads_to_clean ON uploads (id) WHERE cleanup_pending;
CREATE INDEX uploads_to_unarchive ON uploads (finished_at) WHERE archive_pending;

-- Who is alive: a receiving upload's API renews its lease with every heartbeat. The figures are what a poll may have seen,
-- so they are here before they are anywhere else.
CREATE TABLE upload_leases (
    upload_id       uuid PRIMARY KEY REFERENCES uploads ON DELETE CASCADE,
    rows_read       bigint NOT NULL DEFAULT 0,
    bytes_received  bigint NOT NULL DEFAULT 0,
    renewed_at      timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- The ledger: which batches are stored. It, and no index on the rows, keeps a batch from being stored twice.
CREATE TABLE batches (
    upload_id       uuid NOT NULL,
    epoch           integer NOT NULL,
    seq             integer NOT NULL,
    first_row       bigint NOT NULL,
    rows            integer NOT NULL,
    archive_bytes   bigint NOT NULL,
    archive_crc32   bigint NOT NULL,
    stored_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (upload_id, epoch, seq)
);

-- The landing table. Cells are text, in the order of the upload's columns; a NULL cell is not an empty one.
CREATE TABLE rows (
    upload_id       uuid NOT NULL,
    row_number      bigint NOT NULL,
    fields          text[] NOT NULL
);
CREATE INDEX rows_by_upload ON rows USING brin (upload_id uuid_minmax_multi_ops);

-- What people query: rows of uploads that ended well, each as one object.
CREATE VIEW upload_rows AS
SELECT r.upload_id, r.row_number, jsonb_object(u.columns, r.fields) AS data
FROM rows r
JOIN uploads u ON u.id = r.upload_id
WHERE u.status IN ('completed', 'partial');

-- Dead letters, with their messages as they were.
CREATE TABLE parked_batches (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    upload_id       uuid,
    epoch           integer,
    seq             integer,
    attempts        integer NOT NULL,
    reason          text NOT NULL,
    body            bytea NOT NULL,
    parked_at       timestamptz NOT NULL DEFAULT now(),
    UNIQUE (upload_id, epoch, seq)
);
