"""What fast kernels are made with: vectors, threads, memory, compiling."""
