"""A home in an object store: a log of commits there, and a local folder that mirrors it."""

from hpsearch.object_storage.home_session import open_home

__all__ = ["open_home"]
