"""The simulated outside world: devices that publish to the broker. It knows nothing of the gateway or its storage."""
