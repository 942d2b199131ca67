"""The screen: panes that show events. Nothing here imports torch."""

# Least time from one frame to the next of what is drawn as it goes on: what the screen takes, the network lacks.
FRAME_SECONDS = 1 / 20
