"""Stores and runs on the Hugging Face Hub: pushed in one commit with a card, and read again (docs/hub.md)."""
