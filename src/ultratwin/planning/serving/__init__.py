"""What users of a served model feel, and the deployments that keep what they are promised."""
