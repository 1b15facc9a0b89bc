CREATE TABLE IF NOT EXISTS {table} (
    name text COLLATE "C" PRIMARY KEY,
    record json,
    write_id text,
    run text,
    lease_owner text,
    lease_until timestamptz,
    lease interval,
    fence bigint NOT NULL DEFAULT 0,
    is_waited boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);
