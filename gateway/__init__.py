"""The gateway: subscribes, keeps every message, acknowledges what is stored."""
