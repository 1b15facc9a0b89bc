(stored.lease_owner IS NULL OR stored.lease_owner = $2 OR stored.lease_until <= statement_timestamp())
