#!lua flags=allow-oom
--- @use cancel_execution
-- Ends an execution before its time; see the fragment of this name.
--
-- KEYS  1 active (set)  2 stream
-- ARGV  1 execution id  2 now, ms  3 '1' to leave out `finally`, or what is left of it
-- RETURNS 'cancelled' (also when it was before), 'cancelling' while there is a `finally` to run,
--         'unknown', or the state that cannot be cancelled
return cancel_execution(KEYS[2], KEYS[1], ARGV[1], ARGV[2], ARGV[3] == '1')
