"""What to measure: cases, matrices and their markers."""
