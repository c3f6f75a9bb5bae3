"""What stands in files: exports of events, and recordings of messages as `mosquitto_sub` writes them. Never stores."""

from gateway.recordings.opening import records
from gateway.recordings.packing import Unpacked, packing_of
from gateway.recordings.record import Fault, Options, Record, Unfit, checked_topic

__all__ = ["Fault", "Options", "Record", "Unfit", "Unpacked", "checked_topic", "packing_of", "records"]
