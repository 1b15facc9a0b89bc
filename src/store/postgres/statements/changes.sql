({free} OR ($4 AND NOT stored.is_waited) OR stored.lease_until > statement_timestamp() + stored.lease)
