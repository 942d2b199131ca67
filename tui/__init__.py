"""The screen: panes that show events. Nothing here imports torch."""

import gc

gc.freeze()  # what is imported by now stays: looking through it for garbage would hold up the first frame
