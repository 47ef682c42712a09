"""Write what flowd.toml and the manual have from the code; tests compare them with it."""
