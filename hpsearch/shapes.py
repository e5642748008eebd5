"""Array shapes in signatures: jaxtyping if it is installed (as in tests), no cost otherwise.

A bare GPU worker has torch, numpy, pyarrow and pydantic only, so jaxtyping must stay optional.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Num, UInt8
else:
    try:
        from jaxtyping import Bool, Float, Int, Num, UInt8
    except ImportError:

        class _Unchecked:
            def __class_getitem__(cls, item):
                return item[0]

        Bool = Float = Int = Num = UInt8 = _Unchecked

__all__ = ["Bool", "Float", "Int", "Num", "UInt8"]
