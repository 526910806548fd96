"""Turns a file of prompts into finished documents written by Claude, however long they are."""
