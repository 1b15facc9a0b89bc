-- Without a waiter that listens there is no notification: transactions that notify commit one after the other.
UPDATE {table} SET lease_owner = NULL, lease_until = NULL, lease = NULL
FROM {lease}
WHERE name = $1 AND lease_owner = $2
RETURNING CASE WHEN is_waited THEN pg_notify($3, $4)::text END
