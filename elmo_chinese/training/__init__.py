"""Training: flags, start and stop, figures, and the loop of tasks on the biLM."""
