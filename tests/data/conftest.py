"""Property tests here touch files, so a busy machine must not fail them for their time."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
