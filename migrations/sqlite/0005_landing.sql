-- Tenants, and the record of uploads whose rows were kept long enough. The landing table stays: its
-- key already begins with the number of the upload.

ALTER TABLE uploads ADD COLUMN tenant text NOT NULL DEFAULT 'default';
ALTER TABLE uploads ADD COLUMN expired_at text;
CREATE UNIQUE INDEX uploads_by_tenant ON uploads (tenant, id);
CREATE INDEX uploads_to_expire ON uploads (finished_at)
    WHERE status IN ('completed', 'partial') AND expired_at IS NULL;

DROP VIEW upload_rows;
CREATE VIEW upload_rows AS
SELECT u.id AS upload_id, r.row_number,
       (SELECT json_group_object(c.value, r.fields ->> c.key) FROM json_each(u.columns) c) AS data
FROM uploads u
JOIN rows r ON r.id BETWEEN u.number << 36 AND (u.number << 36) + 0xfffffffff
WHERE u.status IN ('completed', 'partial') AND u.expired_at IS NULL;
