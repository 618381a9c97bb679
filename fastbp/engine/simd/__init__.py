"""Vector instructions, whatever the CPU's vectors are."""
