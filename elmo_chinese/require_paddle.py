"""Paddle, or a line that says what to install. The lowest parts of the engine take it from here."""

try:
    import paddle
except ModuleNotFoundError as error:
    if error.name != "paddle":
        raise
    raise ModuleNotFoundError(
        "Paddle is not installed; pip install paddlepaddle==2.6.2 (or paddlepaddle-gpu==2.6.2 for GPUs)", name="paddle"
    ) from None

__all__ = ["paddle"]
