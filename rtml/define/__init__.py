"""The definition language: frozen values, validated at once, that say what a feature means."""
