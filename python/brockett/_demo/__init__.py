"""The networks behind ``brockett demo``: signals by formula, nets in NumPy, measurements, pictures.

Nothing here is public API.
"""
