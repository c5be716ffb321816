"""Ray, storage and execution: steps, artifacts and tables. Knows nothing about retrieval.

Importing it sets, where the environment does not, how the threads of numerical libraries wait; they read that when
they are loaded. Threads that compute together wait for each other, and by default they spin meanwhile: OpenMP's at the
end of every loop, OpenBLAS's for 2^26 ticks after every product, about 25 ms. That keeps a processor from other work.
"""

import os

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_THREAD_TIMEOUT": "4"}  # 2^4 ticks, the least

for _name, _value in WAITING.items():
    os.environ.setdefault(_name, _value)
