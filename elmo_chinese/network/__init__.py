"""The networks' layers, losses, gradients and random numbers, and their inner loops in C++."""
