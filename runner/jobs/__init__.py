"""What a job is: its specification, its states, the job file and its templates."""
