"""Pictures from anywhere: whatever a decoder stumbles over is told in one sentence."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from hpsearch.errors import UserError
from hpsearch.untrusted import reason


@contextmanager
def decoding(file: Path, remedy: str) -> Iterator[None]:
    """Open and decode a picture that anybody may have made.

    More pixels than Pillow takes for sane (89 million) are refused before they are decoded.

    Args:
        file: of the picture.
        remedy: what was expected, or what the user can do.

    Raises:
        UserError: naming the file and what is wrong with it.
        FileNotFoundError: if there is none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (UserError, FileNotFoundError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{file} claims to have far too many pixels; {remedy}") from error
    except Exception as error:  # a decoder of crafted bytes may raise anything
        raise UserError(f"{file} cannot be decoded ({reason(error)}); {remedy}") from error
