"""Load: how many messages a broker and a gateway take, and how long each takes. Simulates no device's life."""
