"""Call services outside flowd: HTTP under the destination policy, and the secrets sent along.

Every address is looked at when it is connected to, after redirects too; answers are bounded in
bytes and time, after decompression. Secrets are looked up here and nowhere else.

May use: config, destinations, redaction. Called by the handlers and by the scheduler's webhooks.
"""
