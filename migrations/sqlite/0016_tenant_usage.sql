-- How much each tenant has uploaded on each day: the same as on Postgres.
CREATE TABLE tenant_usage (
    tenant          text NOT NULL,
    -- The date in UTC, such as 2026-11-27.
    day             text NOT NULL,
    -- Bytes of files, as they were sent.
    bytes           integer NOT NULL,
    -- Rows of files, including rejected rows.
    rows            integer NOT NULL,
    PRIMARY KEY (tenant, day)
) STRICT, WITHOUT ROWID;
CREATE INDEX tenant_usage_by_day ON tenant_usage (day);
