"""The only place that speaks to Redis: its client, the names of keys, the scripts."""
