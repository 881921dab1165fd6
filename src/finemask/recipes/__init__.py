"""Recipes that ship: TOML files with settings that were run and measured."""
