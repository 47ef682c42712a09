"""The HTTP API: what clients send is validated here, what goes wrong becomes a problem document."""
