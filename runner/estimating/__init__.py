"""What a job file would cost: tokens, calls, money and time, before anything is spent."""
