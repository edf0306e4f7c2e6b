"""Output storage: finished files in a directory, or in an object store (S3, GCS, Azure) through obstore.

Example:
    outputs = OutputStore.from_url("s3://bucket/videos")
"""

from serve_app.outputs.base import NotAsStored, OpenOutput, OutputStore, StoredFile
from serve_app.outputs.bucket import Bucket
from serve_app.outputs.directory import Directory

__all__ = ["Bucket", "Directory", "NotAsStored", "OpenOutput", "OutputStore", "StoredFile"]
