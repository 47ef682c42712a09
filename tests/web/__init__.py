"""The dashboard in a real Chromium, on a flowd of its own."""
