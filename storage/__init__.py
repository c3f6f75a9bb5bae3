"""The log: what was received, kept in the order in which it was committed. Knows nothing of MQTT."""
