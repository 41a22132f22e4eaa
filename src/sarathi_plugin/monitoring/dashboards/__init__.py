"""The dashboards, one module each; ``common`` holds what they share."""
