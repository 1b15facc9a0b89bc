-- An expired lease is lost even if the lock is free: another process may have held it meanwhile.
UPDATE {table} SET lease_until = statement_timestamp() + $3 * interval '1 ms', lease = $3 * interval '1 ms'
FROM {lease}
WHERE name = $1 AND lease_owner = $2 AND lease_until > statement_timestamp()
RETURNING true
