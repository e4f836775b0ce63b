-- How much each tenant has uploaded on each day (UTC), for its quotas. An upload is counted when it is
-- sealed or ends before that, in the same transaction. The previous version does not count, so the
-- quotas hold when every API is of this version.
CREATE TABLE tenant_usage (
    -- Tenants are compared by their bytes, as in SQLite.
    tenant          text COLLATE "C" NOT NULL,
    day             date NOT NULL,
    -- Bytes of files, as they were sent.
    bytes           bigint NOT NULL,
    -- Rows of files, including rejected rows.
    rows            bigint NOT NULL,
    PRIMARY KEY (tenant, day)
) WITH (fillfactor = 50);
CREATE INDEX tenant_usage_by_day ON tenant_usage (day);
