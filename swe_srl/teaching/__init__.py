"""Tasks → accepted trajectories, through a teacher's API."""
