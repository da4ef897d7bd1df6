"""Run experiments/linear_neuron.py."""

from experiments.linear_neuron import main

if __name__ == "__main__":
    main()
