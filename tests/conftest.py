"""One thread for every process of the tests, which run side by side: more would only wait for each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
