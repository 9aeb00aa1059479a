"""Where images and sound come from: GStreamer, PyAV or a still picture."""
