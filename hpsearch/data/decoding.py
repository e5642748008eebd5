"""Decoding of untrusted pictures, with errors as one sentence."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from hpsearch.errors import UserError
from hpsearch.untrusted import reason


@contextmanager
def decoding(file: Path, remedy: str) -> Iterator[None]:
    """Decode an untrusted picture inside the block.

    Pictures above Pillow's limit (89 million pixels) are rejected before they are decoded.

    Args:
        file: the picture.
        remedy: expected content, or advice to the user, in the error message.

    Raises:
        UserError: naming the file and the cause.
        FileNotFoundError: if the file is missing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (UserError, FileNotFoundError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{file} has too many pixels according to its header; {remedy}") from error
    except Exception as error:  # a decoder of crafted bytes may raise anything
        raise UserError(f"{file} cannot be decoded ({reason(error)}); {remedy}") from error
