"""A page and an endpoint on which somebody without Python tries a trained model.

`create_app` makes the application (ASGI, on Starlette) of a model, `run` serves it with uvicorn.
A request goes through `guard.py`, which counts what comes in before anything is made of it; its
pictures are decoded in `classifier.py`, and those of all clients go through the network together
(`batching.py`). Nothing is written to disk. The page is in `page/`. Needs the extra 'serve'.
"""

from minitl.serve.app import create_app, run
from minitl.serve.guard import Limits

__all__ = ["Limits", "create_app", "run"]
