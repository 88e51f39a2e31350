"""A whole training run with failures, many times: `simulate.py` runs it, `closed_form.py` is what it is checked by."""
