"""From a program to TVM: plans, rows, kernels."""
