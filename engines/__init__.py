"""Networks and what runs them. Imports nothing of the live path; `protocol` is the seam to it."""
