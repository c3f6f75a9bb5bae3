"""Takes events out of the log: JSON lines, CSV, Parquet. Never changes the log."""

from storage.export.request import Checkpoint, Compression, Done, ExportError, Request, begun
from storage.export.run import write_file, write_stream
from storage.export.unfinished import Unfinished

__all__ = [
    "Checkpoint",
    "Compression",
    "Done",
    "ExportError",
    "Request",
    "Unfinished",
    "begun",
    "write_file",
    "write_stream",
]
