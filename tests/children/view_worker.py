"""A process of multiprocessing that receives Views, writes to them and sends them back."""


def describe(view):
    return view.format, view.shape, view.strides, view.offset, view.readonly, view.tobytes()


def work(connection):
    """Fill each view with 7; send its earlier description, and the view."""
    for view in iter(connection.recv, None):
        seen = describe(view)
        if not view.readonly and view.format != "bfloat16":  # bfloat16 needs ml_dtypes
            view.numpy()[...] = 7
        connection.send((seen, view))
