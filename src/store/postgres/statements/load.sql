SELECT stored.record::text, stored.write_id, stored.run IS DISTINCT FROM {run}, pg_is_in_recovery()
FROM (VALUES (true)) AS always LEFT JOIN {table} AS stored ON stored.name = $1
