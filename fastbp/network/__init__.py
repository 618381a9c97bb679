"""What a network is: its architecture, parameters and results."""
