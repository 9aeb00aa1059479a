"""The networks of both papers in PyTorch; build them with :func:`emo_models.create`.

One module per network. Shapes stand in the names: ``x_BTHWC`` is batch, time, height, width, channel.
"""
