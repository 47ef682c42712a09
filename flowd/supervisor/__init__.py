"""The daemon: one small loop that starts, watches and stops every process of flowd."""
