"""Former name of `hpsearch.execution.preemption_agent`, which cluster files of 0.1.0 start."""

import sys

from hpsearch.execution.preemption_agent import main

if __name__ == "__main__":
    sys.exit(main())
