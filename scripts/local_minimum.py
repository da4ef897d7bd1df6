"""Run experiments/local_minimum.py."""

from experiments.local_minimum import main

if __name__ == "__main__":
    main()
