-- A client that has given up must not leave a session behind that waits for the row. A lease need not wait for the disk: if a
-- crash loses it, the intent that is saved under it remains.
(SELECT set_config('lock_timeout', '{milliseconds}', true), set_config('synchronous_commit', 'off', true)) AS settings
