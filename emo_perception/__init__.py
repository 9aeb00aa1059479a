"""Live perception of emotion for robots: who feels what, which facial movements show it, and why."""
