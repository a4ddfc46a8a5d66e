"""python -m rsdtr.jobs ID: a worker process."""

import sys

from rsdtr.jobs.job_worker import main

if __name__ == "__main__":
    main(sys.argv[1])
