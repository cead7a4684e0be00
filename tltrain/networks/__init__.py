"""Networks, and the weights of published ones."""
