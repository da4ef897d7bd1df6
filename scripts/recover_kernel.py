"""Run experiments/recover_kernel.py."""

from experiments.recover_kernel import main

if __name__ == "__main__":
    main()
