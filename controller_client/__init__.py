"""The controller's side of the inbox; `teg_controller.py` is one file that can also be copied on its own."""

from controller_client.teg_controller import Gateway, NotRecorded

__all__ = ["Gateway", "NotRecorded"]
